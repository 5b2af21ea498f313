"""Files in parts: a few at a time in memory, the whole visible only at the end."""

import hashlib
import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from workers.artifacts.base import STREAM_BYTES
from workers.artifacts.s3.probes import abort, crc32

PART_BYTES = 8 << 20  # smaller files go in one request; S3 wants parts of 5 MiB and more
PARTS_MAX = 10_000
PARTS_AT_ONCE = 4  # which bounds the memory


def part_bytes(size_bytes: int) -> int:
    """Size of a file's parts, whole mebibytes, so that there are not too many."""
    least = math.ceil(size_bytes / PARTS_MAX / (1 << 20)) << 20
    return max(PART_BYTES, least)


def upload_in_parts(
    client: Any,
    bucket: str,
    name: str,
    path: Path,
    metadata: dict[str, str],
    *,
    conditional: bool,
    checksums: bool,
) -> None:
    """Upload a file; what fails or is interrupted is taken back and was never visible.

    A process that is killed leaves parts that no listing of objects shows; see
    :mod:`workers.artifacts.s3.unfinished`. Raises the vendor's errors.
    """
    target = {"Bucket": bucket, "Key": name}
    extra = {"ChecksumAlgorithm": "CRC32"} if checksums else {}
    upload = client.create_multipart_upload(**target, Metadata=metadata, **extra)["UploadId"]
    done = False
    try:
        parts = _upload_parts(client, {**target, "UploadId": upload}, path, checksums)
        condition = {"IfNoneMatch": "*"} if conditional else {}
        client.complete_multipart_upload(
            **target, UploadId=upload, MultipartUpload={"Parts": parts}, **condition
        )
        done = True
    finally:
        if not done:
            abort(client, target, upload)


def _upload_parts(
    client: Any, target: dict[str, str], path: Path, checksums: bool
) -> list[dict[str, Any]]:
    size_bytes = path.stat().st_size
    step = part_bytes(size_bytes)

    def upload(number: int) -> dict[str, Any]:
        with path.open("rb") as file:
            content = _read(file, (number - 1) * step, step)
        sums = {"ChecksumCRC32": crc32(content)} if checksums else {}
        answer = client.upload_part(**target, PartNumber=number, Body=content, **sums)
        return {"PartNumber": number, "ETag": answer["ETag"], **sums}

    pool = ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="upload")
    try:
        return list(pool.map(upload, range(1, math.ceil(size_bytes / step) + 1)))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _read(file: BinaryIO, start: int, size_bytes: int) -> bytes:
    file.seek(start)
    return file.read(size_bytes)


def digest_of(pieces: Iterable[bytes]) -> str:
    """SHA-256 of a content that comes in pieces."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def pieces_of(path: Path) -> Iterator[bytes]:
    """A file's content in pieces."""
    with path.open("rb") as file:
        while piece := file.read(STREAM_BYTES):
            yield piece
