"""Finding out what a server can do, by doing it on objects that nobody needs.

Each probe answers whether the server did what was asked. An answer that it does not know the
request (400, 405, 411, 501) is a no; other refusals are raised, as they say nothing about it.
"""

import base64
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError, ResponseStreamingError

from workers.artifacts.s3.errors import is_about_access, status_of
from workers.artifacts.s3.reading import FAILURES_MAX

_UNKNOWN_REQUEST = (400, 405, 411, 501)
_NO_UPLOAD, _TAKEN = 404, 412


def crc32(content: bytes) -> str:
    """A CRC-32 as S3's headers want it."""
    return base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()


def is_unknown_request(error: ClientError) -> bool:
    """Whether the server says that it does not know this kind of request."""
    return status_of(error) in _UNKNOWN_REQUEST and not is_about_access(error)


def _accepted(request: Callable[[], object]) -> bool:
    try:
        request()
    except ClientError as error:
        if is_unknown_request(error):
            return False
        raise
    return True


def _refused_as_taken(request: Callable[[], object]) -> bool:
    try:
        request()
    except ClientError as error:
        if status_of(error) == _TAKEN:
            return True
        if is_unknown_request(error):
            return False
        raise
    return False


def has_range(client: Any, bucket: str, name: str) -> bool:
    """Whether a part of an object can be read."""
    client.put_object(Bucket=bucket, Key=name, Body=b"spreadtrain")
    for tries_left in reversed(range(FAILURES_MAX)):
        answer = client.get_object(Bucket=bucket, Key=name, Range="bytes=2-5")
        try:
            return bool(answer["Body"].read() == b"read")
        except ResponseStreamingError:  # boto3 repeats requests, but not the reading of a body
            if not tries_left:
                raise
    raise AssertionError("the last failure was raised")


def has_list(client: Any, bucket: str, name: str) -> bool:
    """Whether objects are found by their prefix."""
    client.put_object(Bucket=bucket, Key=name, Body=b"")
    try:
        found = client.list_objects_v2(Bucket=bucket, Prefix=name)
    except ClientError as error:
        if is_unknown_request(error):
            return False
        raise
    return name in {entry["Key"] for entry in found.get("Contents", ())}


def has_conditional_put(client: Any, bucket: str, name: str) -> bool:
    """Whether ``If-None-Match: *`` lets the first writer through and no second."""

    def put() -> object:
        return client.put_object(Bucket=bucket, Key=name, Body=b"", IfNoneMatch="*")

    try:
        put()
    except ClientError as error:
        if is_unknown_request(error):
            return False
        # What is taken at the first try is this probe's own, whose answer was lost: nobody else
        # has the name.
        if status_of(error) != _TAKEN:
            raise
    return _refused_as_taken(put)


def has_multipart(client: Any, bucket: str, name: str) -> bool:
    """Whether an object can be put in parts."""
    return _accepted(lambda: _put_in_parts(client, bucket, name, {}))


def has_conditional_complete(client: Any, bucket: str, name: str) -> bool:
    """Whether ``If-None-Match: *`` guards the end of an upload in parts as well."""
    client.put_object(Bucket=bucket, Key=name, Body=b"")
    return _refused_as_taken(lambda: _put_in_parts(client, bucket, name, {"IfNoneMatch": "*"}))


def _put_in_parts(client: Any, bucket: str, name: str, condition: Mapping[str, str]) -> None:
    target = {"Bucket": bucket, "Key": name}
    upload = client.create_multipart_upload(**target)["UploadId"]
    done = False
    try:
        tag = client.upload_part(**target, UploadId=upload, PartNumber=1, Body=b"part")["ETag"]
        parts = {"Parts": [{"PartNumber": 1, "ETag": tag}]}
        client.complete_multipart_upload(
            **target, UploadId=upload, MultipartUpload=parts, **condition
        )
        done = True
    finally:
        if not done:
            abort(client, target, upload)


def abort(client: Any, target: Mapping[str, str], upload: str) -> None:
    """Take an upload in parts back; one that is over, as where the answer to its end was lost, is
    left as it is."""
    try:
        client.abort_multipart_upload(**target, UploadId=upload)
    except ClientError as error:
        if status_of(error) != _NO_UPLOAD:
            raise


def has_batch_delete(client: Any, bucket: str, name: str) -> bool:
    """Whether several objects go in one request."""
    client.put_object(Bucket=bucket, Key=name, Body=b"")
    objects = {"Objects": [{"Key": name}], "Quiet": True}
    if not _accepted(lambda: client.delete_objects(Bucket=bucket, Delete=objects)):
        return False
    try:
        client.head_object(Bucket=bucket, Key=name)
    except ClientError as error:
        return status_of(error) == 404
    return False


def has_checksums(client: Any, bucket: str, name: str) -> bool:
    """Whether a right CRC-32 is taken and a wrong one refused."""

    def put(content: bytes, checksum: str) -> object:
        return client.put_object(Bucket=bucket, Key=name, Body=content, ChecksumCRC32=checksum)

    return _accepted(lambda: put(b"right", crc32(b"right"))) and not _accepted(
        lambda: put(b"wrong", crc32(b"right"))
    )


# A probe by the capability that it asks about; conditional_complete is for this package alone.
PROBES: Mapping[str, Callable[[Any, str, str], bool]] = {
    "range": has_range,
    "multipart": has_multipart,
    "list": has_list,
    "conditional_put": has_conditional_put,
    "conditional_complete": has_conditional_complete,
    "batch_delete": has_batch_delete,
    "checksums": has_checksums,
}
