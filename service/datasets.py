"""The data sets that a job can name: built in, drawn, uploaded; and how an upload becomes one.

An upload goes to disk as it comes, is checked there in a process of its own, and only what passed
gets into the artifact store, under its digest, and a name in the database.
"""

import builtins
import contextlib
import errno
import hashlib
import re
import secrets
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from service.access.caller import ANYBODY, Caller
from service.errors import (
    DatasetBuiltIn,
    DatasetNotFound,
    FieldError,
    InvalidDataset,
    NotReady,
    NotYours,
    OutOfStorage,
    UploadTooLarge,
)
from service.jobstore import JobStore
from service.uploads import Change, Condition, Upload
from workers.artifacts import ArtifactStore
from workers.content import Facts, data_key, facts_key
from workers.data import DatasetInfo, built_in, built_in_names, catalogue, describe
from workers.data.uploads import upload_info
from workers.errors import (
    ArtifactExists,
    DataError,
    Interrupted,
    InvalidUpload,
    NoRoom,
    SpecMismatch,
    StoreError,
    UnknownDataset,
)
from workers.intake import Limits
from workers.intake.process import take_in_apart
from workers.spec import AnyDataset, NamedDataset

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
RESERVE_BYTES = 256 << 20  # left free on the disk that uploads come to
CONTENTS = "uploaded contents"  # the lock among services
LOOK_BYTES = 8 << 20  # written between two looks at what is free
_NO_ROOM = "There is no room left on disk for the upload; make room."
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Incoming:
    """A body on its way to disk; it leaves nothing behind once it is discarded."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder / secrets.token_hex(8)
        self.folder.mkdir(parents=True)
        self._max_bytes = max_bytes
        self._size_bytes = 0
        self._unlooked_bytes = 0
        self._digest = hashlib.sha256()
        self._file = self.source.open("wb")

    @property
    def source(self) -> Path:
        """The file as it was sent."""
        return self.folder / "source"

    @property
    def normal(self) -> Path:
        """The file in normal form, once it is checked."""
        return self.folder / "data.npy"

    @property
    def digest(self) -> str:
        """SHA-256 of what was sent so far."""
        return f"sha256:{self._digest.hexdigest()}"

    def write(self, piece: bytes) -> None:
        """Append to the file; raises UploadTooLarge, OutOfStorage."""
        self._size_bytes += len(piece)
        if self._size_bytes > self._max_bytes:
            raise UploadTooLarge(f"An upload may have {self._max_bytes:,} bytes at most.")
        self._digest.update(piece)
        # A body need not declare its length, and others come at the same time.
        self._unlooked_bytes += len(piece)
        if self._unlooked_bytes >= LOOK_BYTES:
            self._unlooked_bytes = 0
            if shutil.disk_usage(self.folder).free < RESERVE_BYTES:
                raise OutOfStorage(_NO_ROOM)
        with _room():
            self._file.write(piece)

    def finish(self) -> None:
        """The whole body is there."""
        with _room():
            self._file.close()

    def discard(self) -> None:
        """Remove everything that is still in its folder."""
        with contextlib.suppress(OSError):
            self._file.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OutOfStorage(_NO_ROOM) from error


@dataclass(frozen=True, slots=True)
class Entry:
    """A data set that a spec can name; ``upload`` is None for those that are built in or drawn."""

    info: DatasetInfo
    upload: Upload | None = None


class Datasets:
    """What a job can name. ``incoming_dir`` is this object's alone: it empties it."""

    def __init__(
        self,
        jobs: JobStore,
        artifacts: ArtifactStore,
        cache_dir: Path,
        incoming_dir: Path,
        limits: Limits,
        max_upload_bytes: int,
    ) -> None:
        self._jobs = jobs
        self._artifacts = artifacts
        self._cache_dir = cache_dir
        self._incoming_dir = incoming_dir
        self._limits = limits
        self._max_upload_bytes = max_upload_bytes
        # Between the look whether a content is used and its removal nobody may point a name at it,
        # in this service by the first of two locks, in others by the second.
        self._changing = threading.Lock()
        self._stopping = threading.Event()
        self._counts: dict[str, int] = {}  # how many data a content has, by its digest

    def clean(self) -> None:
        """Remove what a service that was killed has left of uploads."""
        shutil.rmtree(self._incoming_dir, ignore_errors=True)

    def close(self) -> None:
        """End the checks that are under way; the service stops."""
        self._stopping.set()

    # --- reading ------------------------------------------------------------------------------

    def list(self) -> builtins.list[Entry]:
        """Every data set, uploads last, with what to do about those that are not available."""
        ours = [Entry(info) for info in catalogue(self._cache_dir)]
        return ours + [_entry(upload) for upload in self._jobs.uploads()]

    def get(self, name: str) -> Entry:
        """One data set; raises DatasetNotFound."""
        if name in built_in_names():
            return Entry(built_in(name, self._cache_dir))
        upload = self._jobs.upload(name)
        if upload is None:
            raise DatasetNotFound(f"there is no data set {name!r}; GET /v1/datasets lists them")
        return _entry(upload)

    def describe(self, ref: AnyDataset | None) -> DatasetInfo:
        """What a spec refers to: a name's content now, or the content that it pins, or nothing.

        Raises UnknownDataset, DatasetUnavailable, NotReady, and SpecMismatch for data that cannot
        be drawn.
        """
        if not isinstance(ref, NamedDataset) or ref.name in built_in_names():
            return describe(ref, self._cache_dir)
        upload = self._jobs.upload(ref.name)
        if upload is not None and ref.digest in (None, upload.facts.digest):
            return upload_info(ref.name, upload.facts)
        if upload is None and ref.digest is None:
            names = ", ".join((*built_in_names(), *(known.name for known in self._jobs.uploads())))
            raise UnknownDataset(f"there is no data set {ref.name!r}; the known ones are {names}")
        try:
            return describe(ref, self._cache_dir, self._artifacts)
        except StoreError as error:
            raise NotReady("the artifact store does not answer; try again soon") from error

    def count_of(self, ref: AnyDataset | None) -> int | None:
        """How many data the content has that a spec pins, None where that is not at hand.

        It is asked with every answer about a study, so what was found is kept.
        """
        digest = None if ref is None else ref.digest
        if digest is not None and digest in self._counts:
            return self._counts[digest]
        try:
            info = self.describe(ref)
        except (DataError, SpecMismatch, NotReady):
            return None
        if digest not in (None, info.digest):
            return None
        if digest is not None:
            self._counts[digest] = info.count
        return info.count

    # --- uploading ----------------------------------------------------------------------------

    def receive(self, name: str, declared_bytes: int | None, caller: Caller = ANYBODY) -> Incoming:
        """Where to write an upload's body; discard it in the end, whatever happens.

        Raises DatasetBuiltIn, InvalidDataset for a name that cannot be one, NotYours,
        UploadTooLarge and OutOfStorage where that is known before the first byte.
        """
        if name in built_in_names():
            raise DatasetBuiltIn(f"{name} is built in; choose another name for the upload")
        if not NAME.fullmatch(name):
            problem = "must begin with a-z or 0-9 and have up to 64 of a-z, 0-9, dot, _ and -"
            raise InvalidDataset(
                "That cannot be the name of a data set.", (FieldError("/path/name", problem),)
            )
        stored = self._jobs.upload(name) if caller.owner is not None else None
        if stored is not None and not caller.may_change(stored.owner):
            raise NotYours(f"the data set {name} belongs to somebody else; choose another name")
        declared = declared_bytes or 0
        if declared > self._max_upload_bytes:
            raise UploadTooLarge(f"An upload may have {self._max_upload_bytes:,} bytes at most.")
        self._incoming_dir.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._incoming_dir).free
        if declared + RESERVE_BYTES > free:
            raise OutOfStorage(
                f"The upload has {declared / 1e6:.0f} MB and {free / 1e6:.0f} MB are free, of "
                f"which {RESERVE_BYTES / 1e6:.0f} MB stay reserved; make room."
            )
        return Incoming(self._incoming_dir, self._max_upload_bytes)

    def take_in(
        self, name: str, incoming: Incoming, condition: Condition, caller: Caller = ANYBODY
    ) -> tuple[Entry, Change]:
        """Check what was received, store it, and point the name at it.

        Raises InvalidDataset, OutOfStorage, NotReady, DatasetExists, DatasetChanged, NotYours,
        StorageLimit.
        """
        incoming.finish()
        try:
            found = take_in_apart(
                incoming.source,
                incoming.normal,
                self._limits,
                stop=self._stopping,
                reserve_bytes=RESERVE_BYTES,
            )
        except InvalidUpload as error:
            raise InvalidDataset(f"The upload is no data set: {error}.") from error
        except Interrupted as error:
            raise NotReady("the service is stopping; upload again when it is back") from error
        except NoRoom as error:
            raise OutOfStorage(_NO_ROOM) from error
        facts = found.model_copy(update={"source_digest": incoming.digest})
        # Without the locks, as others would wait for as long as the store takes.
        self._store_data(facts, incoming.normal)
        with self._alone():
            self._store(facts, incoming.normal)
            try:
                new = Upload(name, facts, datetime.now(UTC), owner=caller.owner)
                upload, change, before = self._jobs.put_upload(new, condition, caller)
            finally:
                # Where the name did not take it, nobody uses what was stored.
                self._discard(facts.digest)
            if change is Change.MOVED and before is not None:
                self._discard(before.facts.digest)
        return _entry(upload), change

    def delete(self, name: str, condition: Condition, caller: Caller = ANYBODY) -> None:
        """Forget a name, and its content unless another name has it.

        Raises DatasetBuiltIn, DatasetNotFound, DatasetChanged, DatasetInUse, NotYours.
        """
        if name in built_in_names():
            raise DatasetBuiltIn(f"{name} is built in; it cannot be deleted")
        with self._alone():
            forgotten = self._jobs.delete_upload(name, condition, caller)
            self._discard(forgotten.facts.digest)

    def discard_unused(self, digest: str) -> bool:
        """Remove a content from the store if nobody uses it; whether nobody does."""
        with self._alone():
            if self._jobs.is_content_used(digest):
                return False
            self._discard(digest)
            return True

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        busy = "another upload is being stored; repeat the request in a moment"
        with self._changing, self._jobs.alone(CONTENTS, busy):
            yield

    def _store(self, facts: Facts, path: Path) -> None:
        """Put a content under its digest, where it is not there already: under the locks, as one
        with facts must look complete, and be it."""
        self._store_data(facts, path)  # again, where somebody has removed it meanwhile
        key = facts_key(facts.digest)
        with self._storing(), contextlib.suppress(ArtifactExists):
            if not self._artifacts.exists(key):
                self._artifacts.put(key, facts.model_dump_json().encode())

    def _store_data(self, facts: Facts, path: Path) -> None:
        key = data_key(facts.digest)
        with self._storing(), contextlib.suppress(ArtifactExists):
            if not self._artifacts.exists(key):
                self._artifacts.put_file(key, path)

    @contextlib.contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            raise NotReady(f"the artifact store does not take the upload ({error})") from error

    def _discard(self, digest: str) -> None:
        """Remove a content that nobody uses; its facts first, so that it never looks complete."""
        if self._jobs.is_content_used(digest):
            return
        # What cannot be removed now stays: it costs room, and is found again by its digest.
        with contextlib.suppress(StoreError):
            self._artifacts.delete(facts_key(digest))
            self._artifacts.delete(data_key(digest))


def is_upload(ref: AnyDataset | None) -> bool:
    """Whether a reference, if there is one, is to an upload."""
    return isinstance(ref, NamedDataset) and ref.name not in built_in_names()


def _entry(upload: Upload) -> Entry:
    return Entry(upload_info(upload.name, upload.facts), upload)
