"""Artifacts in a folder."""

import contextlib
import errno
import filecmp
import itertools
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from workers.artifacts.base import (
    FOREVER,
    STREAM_BYTES,
    ArtifactStore,
    Capabilities,
    Stored,
    Unfinished,
)
from workers.artifacts.keys import checked
from workers.artifacts.leftovers import (
    INCOMING,
    leftovers_below,
    leftovers_of_this_user,
    remove_empty,
    remove_leftover,
    temporary_folder,
)
from workers.errors import (
    ArtifactExists,
    ArtifactNotFound,
    StoreError,
    StoreFull,
    StoreNotShared,
)

NAME_FILE = ".spreadtrain-store"  # holds the store's name; no key begins with a dot


class LocalStore(ArtifactStore):
    """A folder on this machine. Durable: content and names are flushed before put returns.

    Without a name the folder is made where it is missing, and given one. With the name, as workers
    open it, it must be there already: a node that does not share the folder would train into one of
    its own, and nobody would see the results. Raises StoreNotShared.
    """

    def __init__(self, root: Path, name: str | None = None) -> None:
        self.root = root.resolve()
        self._store_name = self._named() if name is None else name
        self.uri = f"{self.root.as_uri()}?store={self._store_name}"
        if name is not None and (found := self._found_name()) != name:
            there = "has none at its path" if found is None else "has another one at its path"
            raise StoreNotShared(
                f"node {socket.gethostname()} {there}, so it does not share the artifact folder of "
                "the service; use s3://bucket/prefix (SPREADTRAIN_ARTIFACTS_URI), or mount the "
                "folder under the same path on every node"
            )

    def _named(self) -> str:
        """The name of the folder, which is made and named where it is not yet."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"the artifact folder cannot be made: {error.strerror}; check its permissions"
            ) from error
        with _explained("the artifact folder's name"), contextlib.suppress(ArtifactExists):
            if self._found_name() is None:
                self._put(self.root / NAME_FILE, secrets.token_hex(8).encode(), NAME_FILE)
        found = self._found_name()
        if found is None:
            raise StoreError("the artifact folder loses what is written into it")
        return found

    def _found_name(self) -> str | None:
        """The name of the folder that is there now; None where there is none."""
        try:
            return (self.root / NAME_FILE).read_text()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"the artifact folder cannot be read: {error.strerror}") from error

    def _make(self, folder: Path) -> None:
        """A folder of the store; one that was unmounted must not be filled below its mount."""
        if folder.is_dir():
            return
        self._require_root()
        folder.mkdir(parents=True, exist_ok=True)

    def _require_root(self) -> None:
        if self._found_name() != self._store_name:
            raise StoreError("the artifact folder is not there any more; mount it again")

    def _missing(self, key: str) -> ArtifactNotFound:
        """What to raise for a key that has no file; a folder that is away says nothing of it."""
        self._require_root()
        return ArtifactNotFound(f"there is no artifact {key}")

    def _path(self, key: str) -> Path:
        return self.root / checked(key)

    def put(self, key: str, content: bytes) -> None:
        """See :meth:`ArtifactStore.put`."""
        path = self._path(key)
        with _explained(key):
            self._make(path.parent)
            self._put(path, content, key)

    def _put(self, path: Path, content: bytes, key: str) -> None:
        handle, name = tempfile.mkstemp(prefix=INCOMING, dir=path.parent)
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
            self._make(target.parent)
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
            raise self._missing(key) from error
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
            raise self._missing(key) from error
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
        if not folder.is_dir():
            self._require_root()
        return _objects(folder, prefix)

    def delete(self, key: str) -> None:
        """See :meth:`ArtifactStore.delete`."""
        try:
            self._path(key).unlink()
        except (FileNotFoundError, NotADirectoryError):
            self._require_root()
        except OSError as error:
            raise StoreError(f"{key} could not be deleted: {error.strerror}") from error

    def delete_many(self, keys: Iterable[str]) -> None:
        """See :meth:`ArtifactStore.delete_many`."""
        for key in keys:
            self.delete(key)

    def prune(self, prefix: str, before: datetime = FOREVER) -> None:
        """See :meth:`ArtifactStore.prune`."""
        remove_empty(self._path(prefix), before)

    def unfinished(self) -> Iterator[Unfinished]:
        """See :meth:`ArtifactStore.unfinished`."""
        for found in itertools.chain(leftovers_below(self.root), leftovers_of_this_user()):
            is_here = found.path.is_relative_to(self.root)
            name = found.path.relative_to(self.root) if is_here else found.path.name
            yield Unfinished(str(name), found.size_bytes, found.touched_at, str(found.path))

    def discard(self, write: Unfinished) -> None:
        """See :meth:`ArtifactStore.discard`."""
        remove_leftover(Path(write.handle))

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


def _objects(folder: Path, key: str) -> Iterator[Stored]:
    """The files below a folder; only the names of the folders on the way are in memory."""
    try:
        with os.scandir(folder) as entries:
            # A folder sorts as its keys do, with the slash.
            named = sorted(
                ((f"{entry.name}/" if entry.is_dir() else entry.name), entry)
                for entry in entries
                if not entry.name.startswith(".")
            )
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise StoreError(f"{key} could not be listed: {error.strerror}") from error
    for name, entry in named:
        if name.endswith("/"):
            yield from _objects(Path(entry.path), f"{key}/{entry.name}")
            continue
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            status = entry.stat()
            # A linked file keeps its old mtime: its key is as young as the link.
            modified_at = datetime.fromtimestamp(max(status.st_mtime, status.st_ctime), UTC)
            yield Stored(f"{key}/{name}", status.st_size, modified_at)


@contextlib.contextmanager
def _explained(key: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull from error
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
