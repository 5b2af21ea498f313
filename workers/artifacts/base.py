"""The interface of an artifact store: immutable content under keys."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from workers.artifacts.keys import probe_prefix
from workers.errors import ArtifactNotFound, StoreError

STREAM_BYTES = 1 << 20
FOREVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Stored:
    """An object in the store; ``modified_at`` is when it was written, by the store's clock."""

    key: str
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A write that was begun and not ended; its process may be gone, or still at it.

    ``touched_at`` is when something of it was last written, ``handle`` what the store knows it by.
    """

    name: str
    size_bytes: int
    touched_at: datetime
    handle: str


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
        """All objects under the prefix; those below one folder together, in order of their names.

        They come as they are found, so that a store of any size needs little memory; what is
        written or deleted meanwhile may be among them or not.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is already removed."""

    @abstractmethod
    def delete_many(self, keys: Iterable[str]) -> None:
        """Remove objects, as :meth:`delete` does, in as few requests as the store allows."""

    @abstractmethod
    def prune(self, prefix: str, before: datetime = FOREVER) -> None:
        """Remove what a prefix holds besides objects: folders, and writes that were not ended.

        Those that were last changed before a time; any, for a prefix that nobody writes to.
        """

    @abstractmethod
    def unfinished(self) -> Iterator[Unfinished]:
        """Writes into this store that were begun and not ended, as far as this machine sees."""

    @abstractmethod
    def discard(self, write: Unfinished) -> None:
        """Give up an unfinished write; one that has ended meanwhile, in either way, stays so."""

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
            self.prune(prefix)

    def now(self) -> datetime:
        """The time by the store's own clock, to tell the age of what is in it."""
        prefix = probe_prefix()
        key = f"{prefix}/clock"
        self.put(key, b"now")
        try:
            times = [stored.modified_at for stored in self.list(prefix)]
            if not times:
                raise StoreError("the artifact store does not list what was written into it")
            return max(times)
        finally:
            self.delete(key)
            self.prune(prefix)

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
