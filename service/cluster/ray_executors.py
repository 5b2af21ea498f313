"""The executors on Ray: one detached actor for each attempt, found again by name.

A warm spare of the default shape (one core, no GPU) waits for the next attempt, since a fresh
process takes two seconds to its first step. Executors are reused only after a clean end.

An executor is asked, and what it answered last time is looked at: no call waits for an executor.
Ray's exceptions end here as ClusterDown. This runs in the host process (ray_host.py).
"""

import contextlib
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    OutOfMemoryError,
    RayError,
    RaySystemError,
    RpcError,
)

from service.cluster.base import Capacity, ClusterDown, LossCause, Sighting
from service.cluster.processes import is_running
from service.cluster.ray_executor import Executor, ExecutorReport
from service.cluster.ray_session import RaySession
from workers.spec import Resources

DEFAULT_SHAPE = Resources()
USES_PER_EXECUTOR = 20
IDLE_KEPT = 2  # the one just released and the spare; a surplus ends after IDLE_SURPLUS_S
IDLE_SURPLUS_S = 60.0
THREADS_PER_EXECUTOR = 4  # begin, report and stop must never wait for one another
PENDING = Sighting("pending")


@dataclass
class _Seen:
    """What this process knows of one executor."""

    handle: Any
    shape: Resources
    uses: int = 0
    busy: bool = False
    wish: str | None = None
    idle_since: float = field(default_factory=time.monotonic)
    begun: Any = None
    asked: Any = None
    sighting: Sighting = PENDING


@contextmanager
def _vendor_errors() -> Iterator[None]:
    try:
        yield
    except (RayError, ConnectionError, RuntimeError, OSError) as error:
        raise ClusterDown(f"Ray does not answer: {type(error).__name__}") from error


class RayExecutors:
    """What :class:`service.cluster.base.Cluster` asks for, but for joining and leaving."""

    def __init__(self, session: RaySession, namespace: str) -> None:
        self._ray = session
        self._namespace = namespace
        self._seen: dict[str, _Seen] = {}

    def capacity(self) -> Capacity:
        """See :meth:`service.cluster.base.Cluster.capacity`."""
        self._check()
        with _vendor_errors():
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return Capacity(
            cpus=sum(node.get("CPU", 0.0) for node in nodes),
            gpus=sum(node.get("GPU", 0.0) for node in nodes),
            memory_bytes=int(max((node.get("memory", 0.0) for node in nodes), default=0.0)),
            worker_cpus=max((node.get("CPU", 0.0) for node in nodes), default=0.0),
            worker_gpus=max((node.get("GPU", 0.0) for node in nodes), default=0.0),
        )

    def reserve(self, resources: Resources) -> str:
        """See :meth:`service.cluster.base.Cluster.reserve`."""
        self._check()
        idle = self._idle() if resources == DEFAULT_SHAPE else []
        if not idle:
            return _name(resources)
        executor_id = max(idle, key=lambda name: self._seen[name].idle_since)
        self._seen[executor_id].busy = True
        return executor_id

    def launch(self, executor_id: str, run: str, shape: Resources) -> None:
        """See :meth:`service.cluster.base.Cluster.launch`; the run is given as JSON."""
        self._check()
        with _vendor_errors():
            if executor_id not in self._seen:
                self._make_room(shape)
                self._create(executor_id, shape)
            seen = self._seen[executor_id]
            if seen.begun is None:
                seen.busy = True
                seen.uses += 1
                seen.asked = None
                seen.sighting = PENDING
                seen.begun = seen.handle.begin.remote(run)

    def look(self, executor_id: str) -> Sighting:
        """See :meth:`service.cluster.base.Cluster.look`."""
        self._check()
        with _vendor_errors():
            seen = self._find(executor_id)
            if seen is None:
                return Sighting("gone")
            if seen.begun is not None:
                if not ray.wait([seen.begun], timeout=0)[0]:
                    return seen.sighting
                if (failure := self._failure(seen.begun)) is not None:
                    return self._dead(executor_id, failure)
                if seen.wish is not None:
                    seen.handle.stop.remote(seen.wish)
                    seen.wish = None
            if seen.asked is None:
                seen.asked = seen.handle.report.remote()
            if ray.wait([seen.asked], timeout=0)[0]:
                answer, seen.asked = seen.asked, None
                if (failure := self._failure(answer)) is not None:
                    return self._dead(executor_id, failure)
                seen.sighting = _sighting(ray.get(answer))
            return seen.sighting

    def request_stop(self, executor_id: str, reason: str) -> None:
        """See :meth:`service.cluster.base.Cluster.request_stop`."""
        self._check()
        with _vendor_errors():
            seen = self._find(executor_id)
            if seen is None:
                return
            # A wish that overtook the beginning would be forgotten with it: look() sends it on.
            if seen.begun is not None and not ray.wait([seen.begun], timeout=0)[0]:
                seen.wish = reason
            else:
                seen.handle.stop.remote(reason)

    def kill(self, executor_id: str) -> None:
        """See :meth:`service.cluster.base.Cluster.kill`."""
        self._check()
        with _vendor_errors():
            if (seen := self._find(executor_id)) is not None:
                ray.kill(seen.handle, no_restart=True)

    def release(self, executor_id: str, reusable: bool) -> None:
        """See :meth:`service.cluster.base.Cluster.release`."""
        seen = self._seen.get(executor_id)
        if seen is None:
            return
        reusable = (
            reusable
            and seen.shape == DEFAULT_SHAPE
            and seen.uses < USES_PER_EXECUTOR
            and len(self._idle()) < IDLE_KEPT
        )
        if reusable:
            seen.busy = False
            seen.begun = None
            seen.wish = None
            seen.idle_since = time.monotonic()
        else:
            self.kill(executor_id)
            del self._seen[executor_id]

    def tend(self, known: frozenset[str]) -> None:
        """See :meth:`service.cluster.base.Cluster.tend`."""
        self._check()
        with _vendor_errors():
            for name in self._idle():  # an executor that nobody asks after ends itself
                if self.look(name).state == "gone":
                    del self._seen[name]
            self._end_surplus()
            for name in [name for name, seen in self._seen.items() if seen.busy]:
                if name not in known:
                    self._end(name)
            if not self._idle() and self._fits(DEFAULT_SHAPE):
                self._create(_name(DEFAULT_SHAPE), DEFAULT_SHAPE)
            for named in ray.util.list_named_actors(all_namespaces=True):
                name = named["name"]
                ours = named["namespace"] == self._namespace and _shape(name) is not None
                if ours and name not in self._seen and name not in known:
                    self._end(name)

    def _end_surplus(self) -> None:
        by_age = sorted(self._idle(), key=lambda name: self._seen[name].idle_since)
        for name in by_age[:-1]:
            if time.monotonic() - self._seen[name].idle_since > IDLE_SURPLUS_S:
                self._end(name)

    def leave(self) -> None:
        """End the executors that work on nothing; the others go on without this process."""
        self._check()
        with _vendor_errors():
            for name in self._idle():
                self._end(name)

    def _check(self) -> None:
        if not self._ray.is_alive():
            raise ClusterDown("Ray is not running")

    def _idle(self) -> list[str]:
        return [name for name, seen in self._seen.items() if not seen.busy]

    def _fits(self, shape: Resources) -> bool:
        left = self.capacity()
        for seen in self._seen.values():
            left = left.minus(seen.shape)
        return left.fits(shape)

    def _make_room(self, shape: Resources) -> None:
        """End idle executors until the shape fits beside the others."""
        for name in self._idle():
            if self._fits(shape):
                return
            self._end(name)

    def _create(self, executor_id: str, shape: Resources) -> None:
        actor = ray.remote(Executor).options(
            name=executor_id,
            namespace=self._namespace,
            lifetime="detached",
            num_cpus=shape.cpus_per_worker,
            num_gpus=shape.gpus_per_worker,
            max_concurrency=THREADS_PER_EXECUTOR,
            max_restarts=0,
            max_task_retries=0,
            get_if_exists=True,
        )
        self._seen[executor_id] = _Seen(handle=actor.remote(), shape=shape)

    def _find(self, executor_id: str) -> _Seen | None:
        """The executor, looked up by name if another host made it; nothing is waited for."""
        if executor_id not in self._seen:
            try:
                handle = ray.get_actor(executor_id, namespace=self._namespace)
            except ValueError:
                return None
            shape = _shape(executor_id) or DEFAULT_SHAPE
            self._seen[executor_id] = _Seen(handle=handle, shape=shape, busy=True)
        return self._seen[executor_id]

    def _end(self, executor_id: str) -> None:
        with contextlib.suppress(ValueError):  # there is no such actor any more
            ray.kill(ray.get_actor(executor_id, namespace=self._namespace), no_restart=True)
        self._seen.pop(executor_id, None)

    def _failure(self, answer: Any) -> RayError | None:
        """Why an executor has no answer, or None; raises what is Ray's failure, not its own."""
        try:
            ray.get(answer)
        except ActorUnavailableError:
            return None
        except (RaySystemError, RpcError):
            raise
        except RayError as error:
            return error
        return None

    def _dead(self, executor_id: str, failure: RayError) -> Sighting:
        """The actor died, or it could not begin; it is gone when its process is."""
        seen = self._seen[executor_id]
        if not isinstance(failure, ActorDiedError):
            ray.kill(seen.handle, no_restart=True)
        pid = seen.sighting.pid
        if self._ray.own and pid is not None and is_running(pid):
            return seen.sighting
        cause: LossCause = seen.sighting.cause
        if isinstance(failure, OutOfMemoryError):  # Ray's memory monitor ended it
            cause = "out_of_memory"
        seen.sighting = Sighting("gone", pid, seen.sighting.host, _cause(failure), cause)
        return seen.sighting


def _name(shape: Resources) -> str:
    """A new executor's name, which tells its shape to whoever finds it."""
    return f"executor-{shape.cpus_per_worker}c{shape.gpus_per_worker}g-{secrets.token_hex(6)}"


def _shape(name: str) -> Resources | None:
    """The shape of the executor with that name; None if it is no executor's."""
    found = re.fullmatch(r"executor-(\d+)c(\d+)g-[0-9a-f]{12}", name)
    if found is None:
        return None
    return Resources(cpus_per_worker=int(found[1]), gpus_per_worker=int(found[2]))


def _sighting(report: ExecutorReport) -> Sighting:
    return Sighting(
        report["state"], report["pid"], report["host"], report["detail"], report["cause"]
    )


def _cause(failure: RayError) -> str:
    """What Ray knows of the end, without its addresses, ids and advice."""
    if isinstance(failure, OutOfMemoryError):
        return "Ray ended its process, as the machine was running out of memory"
    exit_type = re.search(r"Worker exit type: (\w+)", str(failure))
    detail = re.search(r"Worker exit detail: ([^.\n]+)", str(failure))
    if exit_type is None or detail is None:
        return f"its process ended ({type(failure).__name__})"
    return (
        "its process was killed, ran out of memory or crashed "
        f"(Ray: {exit_type[1]}, {detail[1].strip()})"
    )
