"""Uploads in parts that never came to their end: found, measured and given up.

No listing of objects shows them, and they cost room all the same.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError

from workers.artifacts.base import Unfinished
from workers.artifacts.s3.errors import status_of, translated
from workers.artifacts.s3.location import S3Location
from workers.artifacts.s3.probes import is_unknown_request

_NOT_FOUND = 404


def unfinished_uploads(client: Any, location: S3Location, prefix: str) -> Iterator[Unfinished]:
    """The uploads under a prefix of keys; none where the server does not tell of them."""
    pages = client.get_paginator("list_multipart_uploads").paginate(
        Bucket=location.bucket, Prefix=f"{location.name(prefix)}/"
    )
    with translated(location):
        try:
            for page in pages:
                for upload in page.get("Uploads", ()):
                    # Some servers pass over the prefix that was asked for.
                    if upload["Key"].startswith(f"{location.name(prefix)}/"):
                        yield _measured(client, location, upload)
        except ClientError as error:
            if not is_unknown_request(error) and status_of(error) != _NOT_FOUND:
                raise


def abort_upload(client: Any, location: S3Location, write: Unfinished) -> None:
    """Give an upload up; one that has ended meanwhile stays as it ended."""
    with translated(location):
        try:
            client.abort_multipart_upload(
                Bucket=location.bucket, Key=location.name(write.name), UploadId=write.handle
            )
        except ClientError as error:
            if status_of(error) != _NOT_FOUND:
                raise


def _measured(client: Any, location: S3Location, upload: Any) -> Unfinished:
    """An upload with what has arrived of it; a server that lists no parts tells its beginning."""
    size_bytes, touched_at = 0, upload["Initiated"]
    with contextlib.suppress(ClientError):
        pages = client.get_paginator("list_parts").paginate(
            Bucket=location.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
        )
        for page in pages:
            for part in page.get("Parts", ()):
                size_bytes += int(part["Size"])
                touched_at = max(touched_at, part["LastModified"])
    return Unfinished(location.key(upload["Key"]), size_bytes, touched_at, upload["UploadId"])
