"""The executors on Ray: detached actors for each attempt, found again by name.

A warm spare of the default shape (one worker, one core, no GPU) waits for the next attempt, since a
fresh process takes two seconds to its first step; several do where a study is about to begin.
Executors are reused only after a clean end, and only those of that shape.

An executor is asked, and what it answered last time is looked at: no call waits for an executor.
One whose attempt has begun here tells of its end unasked.
Ray's exceptions end here as ClusterDown. This runs in the host process (ray_host.py).
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import ray
from ray.util.placement_group import remove_placement_group

from service.cluster import ray_gang
from service.cluster.base import Capacity, ClusterDown, Node, Sighting, Unclaimed
from service.cluster.ray_gang import Gang
from service.cluster.ray_session import RaySession
from service.cluster.ray_study import is_driver
from service.cluster.vendor_errors import vendor_errors
from workers.spec import Resources

DEFAULT_SHAPE = Resources()
USES_PER_EXECUTOR = 200
IDLE_KEPT = 2  # the one just released and the spare; a surplus ends after IDLE_SURPLUS_S
IDLE_SURPLUS_S = 60.0
# Between two searches for what earlier services left: Ray lists all of its actors, and placement
# groups with all removed ones.
STRANGER_INTERVAL_S, GROUP_INTERVAL_S = 1.0, 10.0


@dataclass
class _Seen:
    """What this process knows of one executor."""

    gang: Gang
    shape: Resources
    uses: int = 0
    busy: bool = False
    idle_since: float = field(default_factory=time.monotonic)


class RayExecutors:
    """What :class:`service.cluster.base.Cluster` asks for, but for joining and leaving; ``news`` is
    called when an attempt has ended."""

    def __init__(self, session: RaySession, namespace: str, news: Callable[[], None]) -> None:
        self._ray = session
        self._namespace = namespace
        self._news = news
        self._seen: dict[str, _Seen] = {}
        self._spares = 1
        self._strangers_at = self._groups_at = float("-inf")

    def capacity(self) -> Capacity:
        """See :meth:`service.cluster.base.Cluster.capacity`."""
        self._check()
        with vendor_errors():
            having = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if self._ray.own and not having:
            # Its process is there and hangs, or it would be missed by its id: nothing runs any more
            # that Ray could start or end.
            raise ClusterDown("the local Ray has given up its only node")
        return Capacity(
            tuple(
                Node(each.get("CPU", 0.0), each.get("GPU", 0.0), int(each.get("memory", 0.0)))
                for each in having
            )
        )

    def unclaimed(self) -> Unclaimed:
        """See :meth:`service.cluster.base.Cluster.unclaimed`; idle executors are held as well."""
        self._check()
        with vendor_errors():
            left = ray.available_resources()
        return Unclaimed(cpus=left.get("CPU", 0.0), gpus=left.get("GPU", 0.0))

    def reserve(self, resources: Resources) -> str:
        """See :meth:`service.cluster.base.Cluster.reserve`."""
        self._check()
        idle = self._idle() if resources == DEFAULT_SHAPE else []
        if not idle:
            return ray_gang.new_name(resources)
        executor_id = max(idle, key=self._warmth)
        self._seen[executor_id].busy = True
        return executor_id

    def launch(self, executor_id: str, run: str, shape: Resources) -> None:
        """See :meth:`service.cluster.base.Cluster.launch`; the run is given as JSON."""
        self._check()
        with vendor_errors():
            if executor_id not in self._seen:
                self._make_room(shape)
                self._create(executor_id, shape)
            seen = self._seen[executor_id]
            if not seen.gang.has_begun:
                seen.busy = True
                seen.uses += 1
                seen.gang.begin(run)

    def look(self, executor_id: str) -> Sighting:
        """See :meth:`service.cluster.base.Cluster.look`."""
        self._check()
        with vendor_errors():
            seen = self._find(executor_id)
            return Sighting("gone") if seen is None else seen.gang.look()

    def request_stop(self, executor_id: str, reason: str) -> None:
        """See :meth:`service.cluster.base.Cluster.request_stop`."""
        self._check()
        with vendor_errors():
            if (seen := self._find(executor_id)) is not None:
                seen.gang.stop(reason)

    def kill(self, executor_id: str) -> None:
        """See :meth:`service.cluster.base.Cluster.kill`."""
        self._check()
        with vendor_errors():
            if (seen := self._find(executor_id)) is not None:
                seen.gang.end()

    def release(self, executor_id: str, reusable: bool) -> None:
        """See :meth:`service.cluster.base.Cluster.release`."""
        seen = self._seen.get(executor_id)
        if seen is None:
            return
        reusable = (
            reusable
            and seen.shape == DEFAULT_SHAPE
            and seen.uses < USES_PER_EXECUTOR
            and len(self._idle()) < max(IDLE_KEPT, self._spares)
        )
        if reusable:
            seen.busy = False
            seen.gang.rest()
            seen.idle_since = time.monotonic()
        else:
            self.kill(executor_id)
            del self._seen[executor_id]

    def tend(self, known: frozenset[str], spares: int) -> None:
        """See :meth:`service.cluster.base.Cluster.tend`."""
        self._check()
        # On a joined cluster others may want the cores, and nobody knows what is free.
        self._spares = spares if self._ray.own else 1
        with vendor_errors():
            for name in self._idle():  # an executor that nobody asks after ends itself
                if self.look(name).state == "gone":
                    del self._seen[name]
            self._end_surplus()
            for name in [name for name, seen in self._seen.items() if seen.busy]:
                if name not in known:
                    self._end(name)
            for _ in range(self._spares - len(self._idle())):
                if not self._fits(DEFAULT_SHAPE) or self._is_one_waiting():
                    break
                self._create(ray_gang.new_name(DEFAULT_SHAPE), DEFAULT_SHAPE)
            if time.monotonic() - self._strangers_at > STRANGER_INTERVAL_S:
                self._strangers_at = time.monotonic()
                self._end_strangers(known)

    def _end_strangers(self, known: frozenset[str]) -> None:
        """End actors and placement groups of executors that neither this host nor the service
        knows, and drivers that the service does not: earlier ones left them."""
        named = ray.util.list_named_actors(all_namespaces=True)
        ours = [n["name"] for n in named if n["namespace"] == self._namespace]
        for name in ours:
            if is_driver(name) and name not in known:
                with contextlib.suppress(ValueError):  # it has just ended
                    ray.kill(ray.get_actor(name, namespace=self._namespace), no_restart=True)
        names = {ray_gang.executor_of(name) for name in ours}
        for name in names:
            if ray_gang.shape_of(name) and name not in self._seen and name not in known:
                self._end(name)
        if time.monotonic() - self._groups_at > GROUP_INTERVAL_S:
            self._groups_at = time.monotonic()
            for name, group in ray_gang.groups(self._namespace).items():
                if name not in self._seen and name not in known:
                    remove_placement_group(group)

    def _end_surplus(self) -> None:
        by_age = sorted(self._idle(), key=lambda name: self._seen[name].idle_since)
        for name in by_age[: -self._spares]:
            if time.monotonic() - self._seen[name].idle_since > IDLE_SURPLUS_S:
                self._end(name)

    def leave(self) -> None:
        """End the executors that work on nothing; the others go on without this process."""
        self._check()
        with vendor_errors():
            for name in self._idle():
                self._end(name)

    def _check(self) -> None:
        if not self._ray.is_alive():
            raise ClusterDown("Ray is not running")

    def _idle(self) -> list[str]:
        return [name for name, seen in self._seen.items() if not seen.busy]

    def _warmth(self, name: str) -> tuple[bool, float]:
        """Greater for what has started, and among these for what was used later."""
        seen = self._seen[name]
        return seen.gang.look().state != "pending", seen.idle_since

    def _fits(self, shape: Resources) -> bool:
        left = self.capacity()
        for seen in self._seen.values():
            left = left.minus(seen.shape)
        return left.fits(shape)

    def _make_room(self, shape: Resources) -> None:
        """End idle executors until the shape fits beside the others; all of them on a joined Ray,
        where others hold what is not seen here, and each may be on the only node that has room."""
        for name in self._idle():
            if self._ray.own and self._fits(shape):
                return
            self._end(name)

    def _is_one_waiting(self) -> bool:
        """Whether a spare would take a core that an executor waits for, beside what others hold."""
        busy = [seen for seen in self._seen.values() if seen.busy]
        return not self._ray.own and any(seen.gang.look().state == "pending" for seen in busy)

    def _create(self, executor_id: str, shape: Resources) -> None:
        gang = ray_gang.create(executor_id, shape, self._namespace, self._ray.folder, self._news)
        self._seen[executor_id] = _Seen(gang, shape)

    def _find(self, executor_id: str) -> _Seen | None:
        """The executor, looked up by name if another host made it; nothing is waited for."""
        if executor_id not in self._seen:
            shape = ray_gang.shape_of(executor_id) or DEFAULT_SHAPE
            gang = ray_gang.find(executor_id, shape, self._namespace, self._ray.folder, self._news)
            if gang is None:
                return None
            # Not used again: it may be of another version of this program.
            self._seen[executor_id] = _Seen(gang, shape, USES_PER_EXECUTOR, busy=True)
        return self._seen[executor_id]

    def _end(self, executor_id: str) -> None:
        if (seen := self._find(executor_id)) is not None:
            seen.gang.end()
        self._seen.pop(executor_id, None)
