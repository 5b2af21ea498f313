"""The actors of one executor on Ray: one for each worker, all of them or none.

Worker 0's actor has the executor's id as its name, worker k's that id with ``.k``. Several are in a
placement group, which reserves what they need at once, so that two gangs never hold half of it each
and wait for one another. Actors and group are detached: they are found again by name.
"""

import contextlib
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import ray
from ray.util.placement_group import (
    PlacementGroup,
    PlacementGroupID,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from service.cluster.base import LossCause, Sighting
from service.cluster.ray_executor import Executor
from service.cluster.ray_member import Member
from workers.spec import Resources

THREADS_PER_EXECUTOR = 5  # begin, end, report and stop must never wait for one another
# Worker 0 misses a lost one by its connections, and knows the reason best; then this ends the rest.
LOST_GRACE_S = 5.0


class Gang:
    """The workers of one executor; ``folder`` is a place that all of them see, which those of an
    own Ray have."""

    def __init__(
        self,
        name: str,
        members: Sequence[Member],
        group: PlacementGroup | None,
        folder: Path | None,
    ) -> None:
        self.name = name
        self._members = tuple(members)
        self._group = group
        self._meeting = None if folder is None else folder / f"{name}.meeting"
        self._lost: tuple[float, str, LossCause] | None = None
        self._has_ended = False

    @property
    def has_begun(self) -> bool:
        """Whether it was given an attempt."""
        return self._members[0].has_begun

    def begin(self, run: str) -> None:
        """Give all an attempt, as JSON. Worker 0's begins when the processes of all are there."""
        first, *others = self._members
        if not others:
            first.begin(run)
            return
        if self._meeting is not None:
            place = f"file://{self._meeting}"
        else:
            place = first.handle.meet.remote()
        for rank, member in enumerate(others, start=1):
            member.begin(run, rank, place)
        first.begin(run, 0, place, *(member.handle.report.remote() for member in others))

    def rest(self) -> None:
        """The attempt is over, and its end was clean."""
        for member in self._members:
            member.rest()

    def stop(self, reason: str) -> None:
        """Pass on the wish to worker 0, which tells the others with its next step."""
        self._members[0].stop(reason)

    def look(self) -> Sighting:
        """What is to be seen of all; a gang that has lost a worker is ended."""
        for member in self._members:
            member.look()
        first = self._members[0]
        self._note_loss()
        if self._lost is None:
            return first.sighting
        since, story, cause = self._lost
        if first.failure is not None or time.monotonic() - since > LOST_GRACE_S:
            self.end()
        state = "gone" if all(member.is_gone for member in self._members) else first.sighting.state
        return replace(first.sighting, state=state, detail=story, cause=cause)

    def end(self) -> None:
        """End all processes, and give back what the group holds."""
        if self._has_ended:
            return
        self._has_ended = True
        for member in self._members:
            ray.kill(member.handle, no_restart=True)
        if self._group is not None:
            remove_placement_group(self._group)
        if self._meeting is not None:
            self._meeting.unlink(missing_ok=True)

    def _note_loss(self) -> None:
        """Keep why the first that is lost was: the others are ended after it."""
        for rank, member in enumerate(self._members):
            if self._lost is not None:
                return
            several = f"worker {rank}: " if len(self._members) > 1 else ""
            said = member.sighting
            if member.failure is not None:
                self._lost = (time.monotonic(), f"{several}{member.failure}", member.cause)
            elif rank > 0 and said.detail is not None:  # it could not leave its reason in the store
                self._lost = (time.monotonic(), f"{several}{said.detail}", said.cause)


def create(
    name: str, shape: Resources, namespace: str, folder: Path | None, news: Callable[[], None]
) -> Gang:
    """Ask for the actors of an executor; returns before there are any. ``news`` is called when an
    attempt there has ended, or one of them."""
    group = None
    if shape.workers > 1:
        bundle = {"CPU": float(shape.cpus_per_worker), "GPU": float(shape.gpus_per_worker)}
        group = placement_group(
            [{kind: amount for kind, amount in bundle.items() if amount}] * shape.workers,
            strategy="PACK",
            name=f"{namespace}/{name}",  # names of groups are the whole cluster's here
            lifetime="detached",
        )
    members = []
    for rank in range(shape.workers):
        actor = ray.remote(Executor).options(
            name=worker_name(name, rank),
            namespace=namespace,
            lifetime="detached",
            num_cpus=shape.cpus_per_worker,
            num_gpus=shape.gpus_per_worker,
            max_concurrency=THREADS_PER_EXECUTOR,
            max_restarts=0,
            max_task_retries=0,
            get_if_exists=True,
            scheduling_strategy="DEFAULT"
            if group is None
            else PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
        )
        members.append(Member(actor.remote(), is_near=folder is not None, news=news))
    return Gang(name, members, group, folder)


def find(
    name: str, shape: Resources, namespace: str, folder: Path | None, news: Callable[[], None]
) -> Gang | None:
    """The executor that another host asked for, by its name; None if nothing of it is left.

    A gang of which an actor is missing is ended.
    """
    handles = []
    for rank in range(shape.workers):
        with contextlib.suppress(ValueError):  # there is no such actor any more
            handles.append(ray.get_actor(worker_name(name, rank), namespace=namespace))
    group = groups(namespace).get(name) if shape.workers > 1 else None
    members = [Member(handle, is_near=folder is not None, news=news) for handle in handles]
    if len(members) == shape.workers:
        return Gang(name, members, group, folder)
    if members or group is not None:
        Gang(name, members, group, folder).end()
    return None


def groups(namespace: str) -> dict[str, PlacementGroup]:
    """The placement groups of executors in this namespace, by the executors' names."""
    found = {}
    for row in placement_group_table().values():
        prefix, _, name = row["name"].rpartition("/")
        if prefix == namespace and shape_of(name) is not None and row["state"] != "REMOVED":
            identifier = PlacementGroupID(bytes.fromhex(row["placement_group_id"]))
            found[name] = PlacementGroup(identifier)
    return found


def new_name(shape: Resources) -> str:
    """A new executor's name, which tells its shape to whoever finds it."""
    several = f"{shape.workers}x" if shape.workers > 1 else ""
    return (
        f"executor-{several}{shape.cpus_per_worker}c{shape.gpus_per_worker}g-{secrets.token_hex(6)}"
    )


def shape_of(name: str) -> Resources | None:
    """The shape of the executor with that name; None if it is no executor's."""
    found = re.fullmatch(r"executor-(?:(\d+)x)?(\d+)c(\d+)g-[0-9a-f]{12}", name)
    if found is None:
        return None
    return Resources(
        workers=int(found[1] or 1),
        cpus_per_worker=int(found[2]),
        gpus_per_worker=int(found[3]),
    )


def worker_name(name: str, rank: int) -> str:
    """The name of one worker's actor."""
    return f"{name}.{rank}" if rank else name


def executor_of(actor_name: str) -> str:
    """The executor that an actor of this name is part of."""
    return actor_name.partition(".")[0]
