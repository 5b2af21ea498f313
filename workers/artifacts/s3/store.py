"""Artifacts in a bucket."""

import contextlib
import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from botocore.exceptions import ClientError

from workers.artifacts.base import (
    FOREVER,
    ArtifactStore,
    Capabilities,
    Stored,
    Unfinished,
)
from workers.artifacts.keys import PREFIXES, probe_prefix
from workers.artifacts.leftovers import leftovers_of_this_user, remove_leftover, temporary_folder
from workers.artifacts.s3 import client
from workers.artifacts.s3.client import begin, connect
from workers.artifacts.s3.downloads import download_in_parts
from workers.artifacts.s3.errors import no_bucket, status_of, translated
from workers.artifacts.s3.location import S3Location
from workers.artifacts.s3.probes import PROBES, crc32, is_unknown_request
from workers.artifacts.s3.reading import open_body, read_on
from workers.artifacts.s3.unfinished import abort_upload, unfinished_uploads
from workers.artifacts.s3.uploads import PART_BYTES, digest_of, pieces_of, upload_in_parts
from workers.errors import ArtifactExists, ArtifactNotFound, StoreError

PROMPT_BYTES = 1 << 20  # what is no larger is written as promptly as it is read
BATCH = 1000  # S3's own bound on a batch delete
CONFLICTS_MAX = 3
_NOT_FOUND, _CONFLICT, _TAKEN = 404, 409, 412
_FILE = "file:"  # begins the handle of an unfinished write that is a file on this machine
_DIGEST, _WRITER = "spreadtrain-sha256", "spreadtrain-writer"


class S3Store(ArtifactStore):
    """A prefix of a bucket, on any server that speaks S3; for many threads at once.

    Put-if-absent is the server's own (``If-None-Match: *``) where it proves to have it. An answer
    that is lost after the server has written is told from another's writing by what the object
    says of itself: the digest of its content, or for files in parts who wrote it.

    Small requests end soon on a server that is silent; what is large has time.
    """

    def __init__(self, location: S3Location) -> None:
        self.uri = location.uri
        self._location = location
        self._bucket = location.bucket
        session = begin(location)
        self._client = connect(session, location, location.endpoint)
        self._prompt = connect(session, location, location.endpoint, client.PROMPT_TIMEOUT_S)
        self._public = None
        if location.public_endpoint:
            self._public = connect(session, location, location.public_endpoint)
        self._known: dict[str, bool] = {}
        self._probing = threading.Lock()

    # --- writing ------------------------------------------------------------------------------

    def put(self, key: str, content: bytes) -> None:
        """See :meth:`ArtifactStore.put`."""
        name = self._location.name(key)
        digest = hashlib.sha256(content).hexdigest()
        request: dict[str, Any] = {"Body": content, "Metadata": {_DIGEST: digest}}
        sender = self._prompt if len(content) <= PROMPT_BYTES else self._client
        # Where it is not known yet, it is not worth three requests: the signature has the content's
        # SHA-256 in it.
        if self._known.get("checksums"):
            request["ChecksumCRC32"] = crc32(content)
        with translated(self._location):
            if self._can("conditional_put"):
                if self._put_if_absent(sender, name, request):
                    return
            elif not self.exists(key):
                sender.put_object(Bucket=self._bucket, Key=name, **request)
            self._accept_if_same(key, len(content), lambda: digest)

    def put_file(self, key: str, path: Path) -> None:
        """See :meth:`ArtifactStore.put_file`; above 8 MiB in parts, a few of them in memory."""
        name = self._location.name(key)
        try:
            size_bytes = path.stat().st_size
            if size_bytes <= PART_BYTES:
                self.put(key, path.read_bytes())
                return
            writer = secrets.token_hex(16)
            with translated(self._location):
                if self._put_large(key, name, path, {_WRITER: writer}):
                    return
            self._accept_if_same(key, size_bytes, lambda: digest_of(pieces_of(path)), writer)
        except OSError as error:
            raise StoreError(f"{key} could not be read for upload: {error.strerror}") from error

    def _put_if_absent(self, sender: Any, name: str, request: dict[str, Any]) -> bool:
        """Whether this call is known to have written the object; False where the key is taken."""
        for attempt in range(CONFLICTS_MAX):
            try:
                sender.put_object(Bucket=self._bucket, Key=name, IfNoneMatch="*", **request)
            except ClientError as error:
                if status_of(error) == _TAKEN:
                    return False
                # Another writer's request for this key is under way: its end decides.
                if status_of(error) != _CONFLICT or attempt == CONFLICTS_MAX - 1:
                    raise
                time.sleep(0.1 * 2**attempt)
            else:
                break
        return True

    def _put_large(self, key: str, name: str, path: Path, metadata: dict[str, str]) -> bool:
        """Whether this call is known to have written the object, and nobody else since."""
        # Looked up in any case: to find a key taken after gigabytes is late.
        if self.exists(key):
            return False
        if not self._can("multipart"):
            with path.open("rb") as file:
                self._client.put_object(Bucket=self._bucket, Key=name, Body=file, Metadata=metadata)
            return False
        conditional = self._can("conditional_complete")
        try:
            upload_in_parts(
                self._client,
                self._bucket,
                name,
                path,
                metadata,
                conditional=conditional,
                checksums=self._can("checksums"),
            )
        except ClientError as error:
            # 404: the upload is over, because its end was done and the answer to it lost.
            if status_of(error) not in (_TAKEN, _CONFLICT, _NOT_FOUND) or not self.exists(key):
                raise
            return False
        return conditional

    def _accept_if_same(
        self, key: str, size_bytes: int, digest: Callable[[], str], writer: str = ""
    ) -> None:
        """Raise ArtifactExists unless what is under the key is this writer's, or the same."""
        with translated(self._location, key):
            head = self._prompt.head_object(Bucket=self._bucket, Key=self._location.name(key))
        # Some servers give the names of metadata back in title case.
        said = {label.lower(): value for label, value in head.get("Metadata", {}).items()}
        if head["ContentLength"] == size_bytes and (
            (writer and said.get(_WRITER) == writer)
            or (said.get(_DIGEST) or digest_of(self.stream(key))) == digest()
        ):
            return
        raise ArtifactExists(f"{key} is already written")

    # --- reading ------------------------------------------------------------------------------

    def size(self, key: str) -> int:
        """See :meth:`ArtifactStore.size`."""
        with translated(self._location, key):
            head = self._prompt.head_object(Bucket=self._bucket, Key=self._location.name(key))
        return int(head["ContentLength"])

    def stream(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """See :meth:`ArtifactStore.stream`; goes on where a connection broke off."""
        if stop is not None and stop <= start:
            self.size(key)
            return iter(())
        body = open_body(self._prompt, self._location, key, start, stop)
        if body is None:
            return iter(())
        return read_on(self._prompt, self._location, key, body, start, stop)

    def list(self, prefix: str) -> Iterator[Stored]:
        """See :meth:`ArtifactStore.list`; a page of 1000 at a time."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=f"{self._location.name(prefix)}/"
        )
        with translated(self._location):
            for page in pages:
                for entry in page.get("Contents", ()):
                    if not entry["Key"].endswith("/"):  # some servers list folders
                        key = self._location.key(entry["Key"])
                        yield Stored(key, int(entry["Size"]), entry["LastModified"])

    @contextlib.contextmanager
    def open_file(self, key: str) -> Iterator[Path]:
        """See :meth:`ArtifactStore.open_file`; a copy where temporary files are kept."""
        size_bytes = self.size(key)
        with self.staging() as folder:
            path = folder / "content"
            try:
                if size_bytes > PART_BYTES and self._can("range"):
                    download_in_parts(self._client, self._location, key, size_bytes, path)
                else:
                    with path.open("wb") as file:
                        file.writelines(self.stream(key))
            except OSError as error:
                raise StoreError(f"{key} could not be fetched: {error.strerror}") from error
            yield path

    def staging(self) -> AbstractContextManager[Path]:
        """See :meth:`ArtifactStore.staging`; where the system keeps temporary files (TMPDIR)."""
        return temporary_folder()

    def presigned_url(
        self, key: str, expires_s: int, media_type: str = "", file_name: str = ""
    ) -> str | None:
        """See :meth:`ArtifactStore.presigned_url`; there is one where a public endpoint is set."""
        if self._public is None:
            return None
        wanted = {"Bucket": self._bucket, "Key": self._location.name(key)}
        if media_type:
            wanted["ResponseContentType"] = media_type
        if file_name:
            wanted["ResponseContentDisposition"] = f"inline; filename*=UTF-8''{quote(file_name)}"
        with translated(self._location):
            url = self._public.generate_presigned_url("get_object", wanted, ExpiresIn=expires_s)
        return str(url)

    # --- removing -----------------------------------------------------------------------------

    def delete(self, key: str) -> None:
        """See :meth:`ArtifactStore.delete`."""
        with contextlib.suppress(ArtifactNotFound), translated(self._location, key):
            self._prompt.delete_object(Bucket=self._bucket, Key=self._location.name(key))

    def delete_many(self, keys: Iterable[str]) -> None:
        """See :meth:`ArtifactStore.delete_many`; a thousand in one request."""
        left = list(keys)
        while left:
            batch, left = left[:BATCH], left[BATCH:]
            one_by_one: Sequence[str] = batch
            if len(batch) > 1 and self._known.get("batch_delete", True):
                one_by_one = self._delete_batch(batch)
            for key in one_by_one:
                self.delete(key)

    def _delete_batch(self, keys: Sequence[str]) -> Sequence[str]:
        """Delete in one request; returns the keys that it did not delete."""
        names = {self._location.name(key): key for key in keys}
        wanted = {"Objects": [{"Key": name} for name in names], "Quiet": True}
        with translated(self._location):
            try:
                answer = self._client.delete_objects(Bucket=self._bucket, Delete=wanted)
            except ClientError as error:
                if not is_unknown_request(error):
                    raise
                self._known["batch_delete"] = False
                return keys
        return [names[refused["Key"]] for refused in answer.get("Errors", ())]

    def prune(self, prefix: str, before: datetime = FOREVER) -> None:
        """See :meth:`ArtifactStore.prune`; there are no folders."""
        for write in unfinished_uploads(self._client, self._location, prefix):
            if write.touched_at < before:
                self.discard(write)

    def unfinished(self) -> Iterator[Unfinished]:
        """See :meth:`ArtifactStore.unfinished`: uploads in parts, and files on this machine."""
        for prefix in PREFIXES:
            yield from unfinished_uploads(self._client, self._location, prefix)
        for found in leftovers_of_this_user():
            yield Unfinished(
                found.path.name, found.size_bytes, found.touched_at, f"{_FILE}{found.path}"
            )

    def discard(self, write: Unfinished) -> None:
        """See :meth:`ArtifactStore.discard`."""
        if write.handle.startswith(_FILE):
            remove_leftover(Path(write.handle.removeprefix(_FILE)))
        else:
            abort_upload(self._client, self._location, write)

    # --- what it is ---------------------------------------------------------------------------

    def free_bytes(self) -> int | None:
        """See :meth:`ArtifactStore.free_bytes`; no bucket says."""
        return None

    def check(self) -> None:
        """See :meth:`ArtifactStore.check`; a missing bucket is said before some server makes it."""
        with translated(self._location):
            try:
                self._prompt.head_bucket(Bucket=self._bucket)
            except ClientError as error:
                if status_of(error) == _NOT_FOUND:
                    raise no_bucket(self._location) from error
                # An answer to HEAD has no body that says why: the requests that follow get one.
        super().check()

    def capabilities(self) -> Capabilities:
        """See :meth:`ArtifactStore.capabilities`."""
        return Capabilities(
            range=self._can("range"),
            multipart=self._can("multipart"),
            list=self._can("list"),
            conditional_put=self._can("conditional_put"),
            batch_delete=self._can("batch_delete"),
            checksums=self._can("checksums"),
        )

    def _can(self, capability: str) -> bool:
        with self._probing:
            if capability not in self._known:
                name = self._location.name(f"{probe_prefix()}/{capability}")
                with translated(self._location):
                    can = PROBES[capability](self._prompt, self._bucket, name)
                    self._prompt.delete_object(Bucket=self._bucket, Key=name)
                self._known[capability] = can
            return self._known[capability]
