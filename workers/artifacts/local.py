"""Artifacts in a folder."""

import contextlib
import filecmp
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from workers.artifacts.base import (
    STREAM_BYTES,
    ArtifactStore,
    Capabilities,
    Stored,
    temporary_folder,
)
from workers.artifacts.keys import checked
from workers.errors import ArtifactExists, ArtifactNotFound, StoreError


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
        return self.root / checked(key)

    def put(self, key: str, content: bytes) -> None:
        """See :meth:`ArtifactStore.put`."""
        path = self._path(key)
        with _explained(key):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".incoming-", dir=path.parent)
            temporary = Path(name)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                _name(temporary, path, key)
            finally:
                temporary.unlink()

    def put_file(self, key: str, path: Path) -> None:
        """See :meth:`ArtifactStore.put_file`."""
        target = self._path(key)
        with _explained(key):
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_relative_to(self.root):  # staged: on this disk, and nobody's but ours
                _flush(path)
                _name(path, target, key)
                return
            with temporary_folder(target.parent) as folder:
                copy = folder / "content"
                shutil.copyfile(path, copy)
                _flush(copy)
                _name(copy, target, key)

    def size(self, key: str) -> int:
        """See :meth:`ArtifactStore.size`."""
        path = self._path(key)
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ArtifactNotFound(f"there is no artifact {key}") from error
        except OSError as error:
            raise StoreError(f"{key} could not be read: {error.strerror}") from error
        if not path.is_file():
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
        names = {
            path.relative_to(self.root).as_posix(): path
            for path in self._path(prefix).rglob("*")
            if not any(part.startswith(".") for part in path.relative_to(self.root).parts)
        }
        for key in sorted(names):
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                if names[key].is_file():
                    yield Stored(key, names[key].stat().st_size)

    def delete(self, key: str) -> None:
        """See :meth:`ArtifactStore.delete`."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{key} could not be deleted: {error.strerror}") from error

    def delete_many(self, keys: Iterable[str]) -> None:
        """See :meth:`ArtifactStore.delete_many`."""
        for key in keys:
            self.delete(key)

    def free_bytes(self) -> int | None:
        """See :meth:`ArtifactStore.free_bytes`."""
        try:
            return shutil.disk_usage(self.root).free
        except OSError as error:
            raise StoreError(f"the artifact folder cannot be read: {error.strerror}") from error

    def capabilities(self) -> Capabilities:
        """See :meth:`ArtifactStore.capabilities`; a disk verifies nothing that it is sent."""
        return Capabilities(
            range=True,
            multipart=True,
            list=True,
            conditional_put=True,
            batch_delete=True,
            checksums=False,
        )

    @contextlib.contextmanager
    def open_file(self, key: str) -> Iterator[Path]:
        """See :meth:`ArtifactStore.open_file`; it is the stored file itself."""
        self.size(key)
        yield self._path(key)

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """See :meth:`ArtifactStore.staging`; on the same disk, so that nothing is copied.

        While the store's folder is away it is elsewhere, so that a file can wait for the store.
        """
        parent = self.root if self.root.is_dir() else None
        with temporary_folder(parent) as folder:
            yield folder


@contextlib.contextmanager
def _explained(key: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{key} could not be written: {error.strerror}") from error


def _name(source: Path, target: Path, key: str) -> None:
    """Give the source's content its key; raises ArtifactExists if the key holds another."""
    try:
        # A hard link, unlike a rename, fails where the name exists: put-if-absent.
        os.link(source, target)
    except FileExistsError as error:
        if not (target.is_file() and filecmp.cmp(source, target, shallow=False)):
            raise ArtifactExists(f"{key} is already written") from error
    _flush(target.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
