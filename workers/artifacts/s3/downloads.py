"""Objects as files: parts fetched at the same time, each written to its place."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from workers.artifacts.s3.location import S3Location
from workers.artifacts.s3.reading import open_body, read_on

PART_BYTES = 8 << 20
PARTS_AT_ONCE = 8


def download_in_parts(
    client: Any, location: S3Location, key: str, size_bytes: int, path: Path
) -> None:
    """Write an object of this size into a new file; raises ArtifactNotFound, OSError."""
    with path.open("wb") as file:
        descriptor = file.fileno()

        def fetch(start: int) -> None:
            stop = min(start + PART_BYTES, size_bytes)
            body = open_body(client, location, key, start, stop)
            position = start
            if body is not None:
                for piece in read_on(client, location, key, body, start, stop):
                    position += os.pwrite(descriptor, piece, position)

        pool = ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="download")
        try:
            list(pool.map(fetch, range(0, size_bytes, PART_BYTES)))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
