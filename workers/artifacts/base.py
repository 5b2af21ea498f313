"""The interface of an artifact store: immutable content under keys."""

import contextlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from pathlib import Path

from workers.artifacts.keys import probe_prefix
from workers.errors import ArtifactNotFound, StoreError

STREAM_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Stored:
    """An object in the store."""

    key: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store can do by itself; without it a fallback does the same, see WITHOUT."""

    range: bool
    multipart: bool
    list: bool
    conditional_put: bool
    batch_delete: bool
    checksums: bool

    def rows(self) -> tuple[tuple[str, bool], ...]:
        """(name, whether it can), in a fixed order."""
        return tuple(
            (field.name.replace("_", " "), getattr(self, field.name)) for field in fields(self)
        )

    def sentence(self) -> str:
        """All of them in one line."""
        able = ", ".join(name for name, can in self.rows() if can)
        unable = ", ".join(name for name, can in self.rows() if not can)
        return f"can: {able or 'nothing'}" + (f"; cannot: {unable}" if unable else "")


# What happens where a store cannot, by the names of Capabilities.rows().
WITHOUT = {
    "range": "a part is read by reading from the beginning",
    "multipart": "a file goes up in one request, which ends at 5 GB on most servers",
    "list": "nothing under a prefix can be found",
    "conditional put": "a key is looked up before it is written, which is safe for one writer",
    "batch delete": "objects are deleted one by one",
    "checksums": "damage on the way is found by the request's signature, or by TLS",
}


class ArtifactStore(ABC):
    """Where runs publish. Every method raises StoreError when the store cannot be reached."""

    uri: str

    @abstractmethod
    def put(self, key: str, content: bytes) -> None:
        """Write an object whole or not at all; raises ArtifactExists if the key holds another.

        Writing the same content again succeeds: identical content under the same key is the same
        fact, whoever wrote it, and a writer whose answer was lost cannot know that it has written.
        """

    @abstractmethod
    def put_file(self, key: str, path: Path) -> None:
        """As :meth:`put`, from a file of any size, in bounded memory.

        A file in a folder of :meth:`staging` must not change afterwards: the store may keep it
        by a second name instead of a copy. An interrupted call leaves nothing under the key.
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
        """All objects under the prefix; those of one folder in the order of their names."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is already removed."""

    @abstractmethod
    def delete_many(self, keys: Iterable[str]) -> None:
        """Remove objects, as :meth:`delete` does, in as few requests as the store allows."""

    @abstractmethod
    def free_bytes(self) -> int | None:
        """Space left, or None where the store does not say."""

    @abstractmethod
    def capabilities(self) -> Capabilities:
        """What the store can do; tried out once, then known."""

    @abstractmethod
    def open_file(self, key: str) -> AbstractContextManager[Path]:
        """The object as a file on this machine while the block lasts, to be read only.

        Raises ArtifactNotFound.
        """

    @abstractmethod
    def staging(self) -> AbstractContextManager[Path]:
        """A folder for files on their way into or out of the store, gone after the block."""

    def presigned_url(
        self, key: str, expires_s: int, media_type: str = "", file_name: str = ""
    ) -> str | None:
        """An address that gives the object to anybody for a time; None where there is none."""
        return None

    def check(self) -> None:
        """Put, get, range, list and delete a small object; raises StoreError."""
        prefix = probe_prefix()
        key = f"{prefix}/spreadtrain"
        self.put(key, b"spreadtrain")
        try:
            if b"".join(self.stream(key, 2, 6)) != b"read":
                raise StoreError("the artifact store does not return what was written into it")
            if key not in {stored.key for stored in self.list(prefix)}:
                raise StoreError("the artifact store does not list what was written into it")
        finally:
            self.delete(key)

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


@contextlib.contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """A new folder, gone after the block; its name begins with a dot. Raises StoreError."""
    try:
        folder = tempfile.TemporaryDirectory(
            prefix=".incoming-", dir=parent, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise StoreError(f"there is no place for temporary files: {error.strerror}") from error
    with folder as name:
        yield Path(name)
