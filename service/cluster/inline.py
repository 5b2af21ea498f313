"""A cluster inside this process: workers are threads of it. For tests, and for a debugger.

What crosses to an attempt is serialised as it is for Ray, so what cannot cross fails here too. A
thread cannot be killed: ``kill`` asks it to stop, and it is ``gone`` when it has.
"""

import os
import secrets
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Sequence

import psutil

from service.cluster.base import (
    Capacity,
    Heard,
    LossCause,
    Node,
    Sighting,
    Unclaimed,
    loss_by_store,
)
from workers.errors import StoreError
from workers.parallel import LOOPBACK, Seat
from workers.run import Run, StopFlag, StopReason, execute, follow
from workers.spec import Resources


class _Crew:
    """The workers of one attempt, each a thread; they meet at a file."""

    def __init__(self, name: str, wire: str) -> None:
        resources = Run.model_validate_json(wire).spec.resources
        self._folder = tempfile.mkdtemp(prefix="spreadtrain-") if resources.workers > 1 else None
        self._wire = wire
        self.detail: str | None = None
        self.cause: LossCause = "worker_lost"
        self.stops = [StopFlag() for _ in range(resources.workers)]
        self._threads = [
            threading.Thread(target=self._work, args=(rank,), name=f"{name}.{rank}")
            for rank in range(resources.workers)
        ]
        for thread in self._threads:
            thread.start()

    def is_at_work(self) -> bool:
        """Whether any of them is."""
        return any(thread.is_alive() for thread in self._threads)

    def wait(self) -> None:
        """Wait for the end of all."""
        for thread in self._threads:
            thread.join()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _work(self, rank: int) -> None:
        run = Run.model_validate_json(self._wire)
        seat = Seat.of(run.spec.resources, rank, f"file://{self._folder}/meeting", LOOPBACK)
        try:
            if rank == 0:
                execute(run, self.stops[rank], seat)
            else:
                follow(run, self.stops[rank], seat)
        except StoreError as error:
            self.detail, self.cause = loss_by_store(error)


class InlineCluster:
    """See :class:`service.cluster.base.Cluster`."""

    own = True

    def __init__(self, cpus: float = 1.0, memory_bytes: int | None = None) -> None:
        self._session = secrets.token_hex(4)
        self._capacity = Capacity((Node(cpus, 0.0, memory_bytes or psutil.virtual_memory().total),))
        self._crews: dict[str, _Crew] = {}

    @property
    def session(self) -> str:
        """See :attr:`service.cluster.base.Cluster.session`."""
        return self._session

    def capacity(self) -> Capacity:
        """See :meth:`service.cluster.base.Cluster.capacity`."""
        return self._capacity

    def unclaimed(self) -> Unclaimed | None:
        """See :meth:`service.cluster.base.Cluster.unclaimed`."""
        return None

    def reserve(self, resources: Resources) -> str:
        """See :meth:`service.cluster.base.Cluster.reserve`."""
        return f"inline-{secrets.token_hex(4)}"

    def launch(self, executor_id: str, run: Run) -> None:
        """See :meth:`service.cluster.base.Cluster.launch`."""
        if executor_id not in self._crews:
            self._crews[executor_id] = _Crew(executor_id, run.model_dump_json())

    def look(self, executor_id: str) -> Sighting:
        """See :meth:`service.cluster.base.Cluster.look`."""
        crew = self._crews.get(executor_id)
        if crew is None:
            return Sighting("gone")
        return Sighting(
            "running" if crew.is_at_work() else "gone",
            pid=os.getpid(),
            host=socket.gethostname(),
            detail=crew.detail,
            cause=crew.cause,
        )

    def request_stop(self, executor_id: str, reason: StopReason) -> None:
        """See :meth:`service.cluster.base.Cluster.request_stop`."""
        if executor_id in self._crews:
            self._crews[executor_id].stops[0].request(reason)

    def kill(self, executor_id: str) -> None:
        """See :meth:`service.cluster.base.Cluster.kill`."""
        if executor_id in self._crews:
            for stop in self._crews[executor_id].stops:
                stop.request("interrupted")

    def release(self, executor_id: str, *, reusable: bool) -> None:
        """See :meth:`service.cluster.base.Cluster.release`."""
        if (crew := self._crews.pop(executor_id, None)) is not None:
            crew.wait()

    def tend(self, known: frozenset[str], spares: int = 1) -> None:
        """See :meth:`service.cluster.base.Cluster.tend`."""

    def start_driver(self, name: str, setup: str) -> None:
        """See :meth:`service.cluster.base.Drivers.start_driver`; there is no Ray Tune here."""

    def exchange(self, name: str, lines: Sequence[str]) -> Heard:
        """See :meth:`service.cluster.base.Drivers.exchange`."""
        return Heard(is_gone=True, detail="a cluster without Ray runs no studies")

    def end_driver(self, name: str) -> None:
        """See :meth:`service.cluster.base.Drivers.end_driver`."""

    def listen(self, *, spoken: Callable[[], None], ended: Callable[[], None]) -> None:
        """See :meth:`service.cluster.base.Cluster.listen`; rounds see it soon enough."""

    def rejoin(self) -> None:
        """See :meth:`service.cluster.base.Cluster.rejoin`."""

    def close(self) -> None:
        """See :meth:`service.cluster.base.Cluster.close`."""
        for executor_id in list(self._crews):
            self.kill(executor_id)
            self.release(executor_id, reusable=False)
