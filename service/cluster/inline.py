"""A cluster inside this process: attempts run in threads. For tests, and for a debugger.

What crosses to an attempt is serialised as it is for Ray, so what cannot cross fails here too. A
thread cannot be killed: ``kill`` asks it to stop, and it is ``gone`` when it has.
"""

import os
import secrets
import socket
import threading

import psutil

from service.cluster.base import Capacity, Sighting
from workers.errors import StoreError
from workers.run import Run, StopFlag, StopReason, execute
from workers.spec import Resources


class InlineCluster:
    """See :class:`service.cluster.base.Cluster`."""

    own = True

    def __init__(self, cpus: float = 1.0, memory_bytes: int | None = None) -> None:
        self._session = secrets.token_hex(4)
        self._capacity = Capacity(
            cpus=cpus,
            gpus=0.0,
            memory_bytes=memory_bytes or psutil.virtual_memory().total,
            worker_cpus=cpus,
            worker_gpus=0.0,
        )
        self._threads: dict[str, tuple[threading.Thread, StopFlag]] = {}
        self._details: dict[str, str] = {}

    @property
    def session(self) -> str:
        """See :attr:`service.cluster.base.Cluster.session`."""
        return self._session

    def capacity(self) -> Capacity:
        """See :meth:`service.cluster.base.Cluster.capacity`."""
        return self._capacity

    def reserve(self, resources: Resources) -> str:
        """See :meth:`service.cluster.base.Cluster.reserve`."""
        return f"inline-{secrets.token_hex(4)}"

    def launch(self, executor_id: str, run: Run) -> None:
        """See :meth:`service.cluster.base.Cluster.launch`."""
        if executor_id in self._threads:
            return
        stop = StopFlag()
        wire = run.model_dump_json()

        def attempt() -> None:
            try:
                execute(Run.model_validate_json(wire), stop)
            except StoreError as error:
                self._details[executor_id] = f"its outcome could not be written: {error}"

        thread = threading.Thread(target=attempt, name=executor_id)
        self._threads[executor_id] = (thread, stop)
        thread.start()

    def look(self, executor_id: str) -> Sighting:
        """See :meth:`service.cluster.base.Cluster.look`."""
        if executor_id not in self._threads:
            return Sighting("gone")
        alive = self._threads[executor_id][0].is_alive()
        return Sighting(
            "running" if alive else "gone",
            pid=os.getpid(),
            host=socket.gethostname(),
            detail=self._details.get(executor_id),
            cause="store_unreachable" if executor_id in self._details else "worker_lost",
        )

    def request_stop(self, executor_id: str, reason: StopReason) -> None:
        """See :meth:`service.cluster.base.Cluster.request_stop`."""
        if executor_id in self._threads:
            self._threads[executor_id][1].request(reason)

    def kill(self, executor_id: str) -> None:
        """See :meth:`service.cluster.base.Cluster.kill`."""
        self.request_stop(executor_id, "interrupted")

    def release(self, executor_id: str, *, reusable: bool) -> None:
        """See :meth:`service.cluster.base.Cluster.release`."""
        thread, _ = self._threads.pop(executor_id, (None, None))
        self._details.pop(executor_id, None)
        if thread is not None:
            thread.join()

    def tend(self, known: frozenset[str]) -> None:
        """See :meth:`service.cluster.base.Cluster.tend`."""

    def rejoin(self) -> None:
        """See :meth:`service.cluster.base.Cluster.rejoin`."""

    def close(self) -> None:
        """See :meth:`service.cluster.base.Cluster.close`."""
        for executor_id in list(self._threads):
            self.kill(executor_id)
            self.release(executor_id, reusable=False)
