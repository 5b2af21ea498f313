"""Generators kept ready: least recently used first out, bounded by bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from service.errors import NotReady
from service.measures import Measures
from workers.generate import Generator

LOADS_AT_ONCE = 2  # each may need several times its file in memory for a moment
PATIENCE_S = 5.0  # a large one, or a silent store, takes longer, and threads are few


@dataclass(frozen=True, slots=True)
class _Ready:
    generator: Generator
    size_bytes: int


class GeneratorCache:
    """Generators by the immutable prefix of their checkpoint.

    A missing one is loaded once, however many ask for it at the same time; other keys do not
    wait for it.
    """

    def __init__(
        self,
        capacity_bytes: int,
        measures: Measures | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._capacity_bytes = capacity_bytes
        self._patience_s = patience_s
        self._measures = (measures or Measures()).generators
        self._lock = threading.Lock()
        self._ready: OrderedDict[str, _Ready] = OrderedDict()
        self._forgets = 0
        self._loading: dict[str, threading.Lock] = {}
        self._turns = threading.BoundedSemaphore(LOADS_AT_ONCE)

    def get(self, key: str, size_bytes: int, load: Callable[[], Generator]) -> Generator:
        """The generator under the key, from ``load`` where it is not there.

        Raises as that does, and NotReady while another request still loads it.
        """
        with self._lock:
            forgets = self._forgets
            if (found := self._find(key)) is not None:
                self._measures.hit()
                return found
            loading = self._loading.setdefault(key, threading.Lock())
        if not loading.acquire(timeout=self._patience_s):
            raise NotReady("the model of this checkpoint is still being loaded; try again soon")
        try:
            with self._lock:
                if (found := self._find(key)) is not None:
                    self._measures.hit()
                    return found
            generator = self._load_in_turn(load)
            with self._lock:
                # It may be what was forgotten meanwhile: its caller gets it, and nobody else.
                if self._forgets == forgets:
                    self._keep(key, _Ready(generator, size_bytes))
            return generator
        finally:
            loading.release()
            with self._lock:
                self._loading.pop(key, None)

    def _load_in_turn(self, load: Callable[[], Generator]) -> Generator:
        if not self._turns.acquire(timeout=self._patience_s):
            raise NotReady("models of other checkpoints are being loaded; try again soon")
        try:
            with self._measures.loading():
                return load()
        finally:
            self._turns.release()

    def forget(self, prefix: str) -> None:
        """Let go of the generators of all checkpoints below a prefix."""
        with self._lock:
            self._forgets += 1
            for key in [key for key in self._ready if key.startswith(f"{prefix}/")]:
                del self._ready[key]
            self._measures.holds(self._size_bytes())

    def _find(self, key: str) -> Generator | None:
        ready = self._ready.get(key)
        if ready is None:
            return None
        self._ready.move_to_end(key)
        return ready.generator

    def _keep(self, key: str, ready: _Ready) -> None:
        if ready.size_bytes > self._capacity_bytes:
            return  # it would push out all others and then itself
        self._ready[key] = ready
        while self._size_bytes() > self._capacity_bytes:
            self._ready.popitem(last=False)
            self._measures.evicted()
        self._measures.holds(self._size_bytes())

    def _size_bytes(self) -> int:
        return sum(kept.size_bytes for kept in self._ready.values())
