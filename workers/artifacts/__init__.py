"""The artifact store: immutable content under keys, in a local folder or in S3."""

from pathlib import Path
from urllib.parse import parse_qs, unquote, urlparse

from workers.artifacts.base import (
    STREAM_BYTES,
    WITHOUT,
    ArtifactStore,
    Capabilities,
    Stored,
    Unfinished,
)
from workers.artifacts.keys import (
    INSTALLATION_KEY,
    attempt_prefix,
    chunk_key,
    failure_key,
    failures_prefix,
    job_prefix,
    log_end_key,
    log_key,
    logs_prefix,
    outcome_key,
    parent_prefix,
)
from workers.artifacts.local import LocalStore
from workers.errors import StoreError

__all__ = [
    "INSTALLATION_KEY",
    "STREAM_BYTES",
    "WITHOUT",
    "ArtifactStore",
    "Capabilities",
    "LocalStore",
    "Stored",
    "Unfinished",
    "attempt_prefix",
    "chunk_key",
    "failure_key",
    "failures_prefix",
    "job_prefix",
    "log_end_key",
    "log_key",
    "logs_prefix",
    "open_store",
    "outcome_key",
    "parent_prefix",
]


def open_store(uri: str) -> ArtifactStore:
    """The store at a URI: ``file:///folder`` or ``s3://bucket/prefix?endpoint=…``.

    A store crosses to a worker as its own ``uri`` and is opened there. That of a folder names it
    (``?store=…``), so that it is never made or mistaken on another machine: see
    :class:`LocalStore`, and :class:`workers.artifacts.s3.location.S3Location` for S3. Raises
    StoreError for a URI that is none of these.
    """
    parsed = urlparse(uri)
    if parsed.scheme == "file" and parsed.netloc in ("", "localhost"):
        (name,) = parse_qs(parsed.query).get("store", [None])
        return LocalStore(Path(unquote(parsed.path)), name)
    if parsed.scheme == "s3":
        # Here, as boto3 takes a fifth of a second to import and a local folder needs none of it.
        from workers.artifacts.s3.location import S3Location
        from workers.artifacts.s3.store import S3Store

        return S3Store(S3Location.parse(uri))
    raise StoreError(
        "an artifact store is given as file:///folder or s3://bucket/prefix, "
        f"not as {parsed.scheme}://"
    )
