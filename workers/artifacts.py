"""The artifact store: immutable content under keys, and the layout of every key.

::

    jobs/<job>/attempts/<n>/events/<chunk>.jsonl            one record a line
    jobs/<job>/attempts/<n>/checkpoints/<id>/weights.safetensors
                                            /train_state.safetensors
                                            /manifest.json   written last: the checkpoint exists
    jobs/<job>/attempts/<n>/files/<name>                     grids/<step>.png and the like
    jobs/<job>/attempts/<n>/outcome.json                     written once: the attempt has ended
    datasets/<sha256>/data.npy                               an uploaded data set
                     /facts.json                             written last: the content is complete

A run's keys have one writer. Content goes first, then the object that names it.
"""

import os
import re
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

from workers.errors import ArtifactExists, ArtifactNotFound, StoreError

_KEY = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.=-]*(/[A-Za-z0-9_][A-Za-z0-9_.=-]*)*$")
STREAM_BYTES = 1 << 20


def job_prefix(job_id: str) -> str:
    """Prefix of everything that belongs to a job."""
    return f"jobs/{job_id}"


def attempt_prefix(job_id: str, attempt: int) -> str:
    """Prefix of everything that one attempt writes."""
    return f"{job_prefix(job_id)}/attempts/{attempt}"


def chunk_key(prefix: str, chunk: int) -> str:
    """Key of an attempt's event chunk, numbered from 0."""
    return f"{prefix}/events/{chunk:08d}.jsonl"


def outcome_key(prefix: str) -> str:
    """Key of an attempt's outcome."""
    return f"{prefix}/outcome.json"


@dataclass(frozen=True, slots=True)
class Stored:
    """An object in the store."""

    key: str
    size_bytes: int


class ArtifactStore(ABC):
    """Where runs publish. Every method raises StoreError when the store cannot be reached."""

    uri: str

    @abstractmethod
    def put(self, key: str, content: bytes) -> None:
        """Write an object whole or not at all; raises ArtifactExists if the key is taken."""

    @abstractmethod
    def put_file(self, key: str, path: Path) -> None:
        """Write a file's content as :meth:`put` does, never holding it in memory.

        The file must not change afterwards: a store on the same disk shares its bytes.
        """

    @abstractmethod
    def size(self, key: str) -> int:
        """Size in bytes; raises ArtifactNotFound."""

    @abstractmethod
    def stream(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes of [start, stop) in pieces of at most 1 MiB; raises ArtifactNotFound.

        The object is opened before the first piece is asked for, so that what is missing is
        known at once.
        """

    @abstractmethod
    def list(self, prefix: str) -> Iterator[Stored]:
        """All objects under the prefix, in the order of their keys."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is already removed."""

    @abstractmethod
    def free_bytes(self) -> int | None:
        """Space left, or None where the store does not say."""

    @abstractmethod
    def check(self) -> None:
        """Put, get, range, list and delete a small object; raises StoreError."""

    def get(self, key: str) -> bytes:
        """The whole object; raises ArtifactNotFound."""
        return b"".join(self.stream(key))

    def exists(self, key: str) -> bool:
        """Whether the key holds an object."""
        try:
            self.size(key)
        except ArtifactNotFound:
            return False
        return True


class LocalStore(ArtifactStore):
    """A folder on this machine. Durable: content and names are flushed before put returns."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.uri = self.root.as_uri()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"the artifact folder cannot be made: {error.strerror}; check its permissions"
            ) from error

    def _path(self, key: str) -> Path:
        if not _KEY.match(key):
            raise ArtifactNotFound(f"{key!r} is not an artifact key")
        return self.root / key

    def put(self, key: str, content: bytes) -> None:
        """See :meth:`ArtifactStore.put`."""
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=".incoming-", dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                # A hard link, unlike a rename, fails where the name exists: put-if-absent.
                os.link(temporary, path)
            finally:
                Path(temporary).unlink()
            _flush_folder(path.parent)
        except FileExistsError as error:
            raise ArtifactExists(f"{key} is already written") from error
        except OSError as error:
            raise StoreError(f"{key} could not be written: {error.strerror}") from error

    def put_file(self, key: str, path: Path) -> None:
        """See :meth:`ArtifactStore.put_file`."""
        target = self._path(key)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with path.open("rb") as file:
                os.fsync(file.fileno())
            try:
                os.link(path, target)
            except FileExistsError:
                raise
            except OSError:  # another disk, or one without links
                self._put_copy(path, target)
            _flush_folder(target.parent)
        except FileExistsError as error:
            raise ArtifactExists(f"{key} is already written") from error
        except OSError as error:
            raise StoreError(f"{key} could not be written: {error.strerror}") from error

    def _put_copy(self, path: Path, target: Path) -> None:
        handle, temporary = tempfile.mkstemp(prefix=".incoming-", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as copy, path.open("rb") as file:
                shutil.copyfileobj(file, copy, STREAM_BYTES)
                copy.flush()
                os.fsync(copy.fileno())
            os.link(temporary, target)
        finally:
            Path(temporary).unlink()

    def size(self, key: str) -> int:
        """See :meth:`ArtifactStore.size`."""
        try:
            status = self._path(key).stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ArtifactNotFound(f"there is no artifact {key}") from error
        except OSError as error:
            raise StoreError(f"{key} could not be read: {error.strerror}") from error
        if not self._path(key).is_file():
            raise ArtifactNotFound(f"there is no artifact {key}")
        return status.st_size

    def stream(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """See :meth:`ArtifactStore.stream`."""
        end = self.size(key) if stop is None else stop
        try:
            file = self._path(key).open("rb")
        except FileNotFoundError as error:
            raise ArtifactNotFound(f"there is no artifact {key}") from error
        except OSError as error:
            raise StoreError(f"{key} could not be read: {error.strerror}") from error

        def pieces() -> Iterator[bytes]:
            with file:
                file.seek(start)
                left = end - start
                while left > 0 and (piece := file.read(min(left, STREAM_BYTES))):
                    left -= len(piece)
                    yield piece

        return pieces()

    def list(self, prefix: str) -> Iterator[Stored]:
        """See :meth:`ArtifactStore.list`."""
        folder = self._path(prefix)
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                yield Stored(path.relative_to(self.root).as_posix(), path.stat().st_size)

    def delete(self, key: str) -> None:
        """See :meth:`ArtifactStore.delete`."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{key} could not be deleted: {error.strerror}") from error

    def free_bytes(self) -> int | None:
        """See :meth:`ArtifactStore.free_bytes`."""
        return shutil.disk_usage(self.root).free

    def check(self) -> None:
        """See :meth:`ArtifactStore.check`."""
        key = f"probes/{os.getpid()}-{os.urandom(6).hex()}"
        self.put(key, b"spreadtrain")
        try:
            if b"".join(self.stream(key, 2, 6)) != b"read":
                raise StoreError("the artifact folder does not return what was written into it")
            if key not in {stored.key for stored in self.list("probes")}:
                raise StoreError("the artifact folder does not list what was written into it")
        finally:
            self.delete(key)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_store(uri: str) -> ArtifactStore:
    """The store at a URI: ``file:///folder``.

    A store crosses to a worker as its URI and is opened there. Raises StoreError for a scheme
    that is not known.
    """
    parsed = urlparse(uri)
    if parsed.scheme == "file" and parsed.netloc in ("", "localhost"):
        return LocalStore(Path(unquote(parsed.path)))
    raise StoreError(f"an artifact store is given as file:///folder, not as {parsed.scheme}://")
