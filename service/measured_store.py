"""An artifact store whose calls are timed and whose failures are counted."""

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from service.measures import StorageMeasures
from workers.artifacts import ArtifactStore, Capabilities, Stored, Unfinished
from workers.artifacts.base import FOREVER
from workers.errors import (
    ArtifactExists,
    ArtifactNotFound,
    StoreAway,
    StoreError,
    StoreFull,
    StoreNotShared,
)

Part = TypeVar("Part")


def _kind(error: StoreError) -> str | None:
    """What the store failed with; None for what is an answer."""
    match error:
        case ArtifactNotFound() | ArtifactExists():
            return None
        case StoreAway():
            return "away"
        case StoreFull():
            return "full"
        case StoreNotShared():
            return "not_shared"
        case _:
            return "other"


class MeasuredStore(ArtifactStore):
    """Another store, with its calls counted under the names of its methods."""

    def __init__(self, store: ArtifactStore, measures: StorageMeasures) -> None:
        self._store = store
        self._measures = measures
        self.uri = store.uri

    @contextmanager
    def _seen(self, operation: str) -> Iterator[None]:
        began, error = time.perf_counter(), None
        try:
            yield
        except StoreError as failure:
            error = _kind(failure)
            raise
        finally:
            self._measures.seen(operation, time.perf_counter() - began, error)

    def put(self, key: str, content: bytes) -> None:
        """See the base class."""
        with self._seen("put"):
            self._store.put(key, content)

    def put_file(self, key: str, path: Path) -> None:
        """See the base class."""
        with self._seen("put_file"):
            self._store.put_file(key, path)

    def size(self, key: str) -> int:
        """See the base class."""
        with self._seen("size"):
            return self._store.size(key)

    def stream(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """See the base class."""
        with self._seen("stream"):
            pieces = self._store.stream(key, start, stop)
        return self._watched("stream", pieces)

    def list(self, prefix: str) -> Iterator[Stored]:
        """See the base class; it goes on with its reader, so only failures are counted."""
        return self._watched("list", self._store.list(prefix))

    def _watched(self, operation: str, parts: Iterator[Part]) -> Iterator[Part]:
        try:
            yield from parts
        except StoreError as failure:
            self._measures.failed(operation, _kind(failure))
            raise

    def delete(self, key: str) -> None:
        """See the base class."""
        with self._seen("delete"):
            self._store.delete(key)

    def delete_many(self, keys: Iterable[str]) -> None:
        """See the base class."""
        with self._seen("delete_many"):
            self._store.delete_many(keys)

    def prune(self, prefix: str, before: datetime = FOREVER) -> None:
        """See the base class."""
        with self._seen("prune"):
            self._store.prune(prefix, before)

    def unfinished(self) -> Iterator[Unfinished]:
        """See the base class; only sweeps ask, and they are not timed."""
        return self._store.unfinished()

    def discard(self, write: Unfinished) -> None:
        """See the base class."""
        with self._seen("discard"):
            self._store.discard(write)

    def free_bytes(self) -> int | None:
        """See the base class."""
        with self._seen("free_bytes"):
            return self._store.free_bytes()

    def capabilities(self) -> Capabilities:
        """See the base class; known but for the first time."""
        return self._store.capabilities()

    @contextmanager
    def open_file(self, key: str) -> Iterator[Path]:
        """See the base class; the time is that of the download, not of the block."""
        with ExitStack() as stack:
            with self._seen("open_file"):
                path = stack.enter_context(self._store.open_file(key))
            yield path

    def staging(self) -> AbstractContextManager[Path]:
        """See the base class."""
        return self._store.staging()

    def presigned_url(
        self, key: str, expires_s: int, media_type: str = "", file_name: str = ""
    ) -> str | None:
        """See the base class; computed here, without a call."""
        return self._store.presigned_url(key, expires_s, media_type, file_name)

    def check(self) -> None:
        """See the base class; several calls, which are timed as one."""
        with self._seen("check"):
            self._store.check()
