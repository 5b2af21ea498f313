"""What the watcher asks of a cluster, whichever it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

from workers.errors import StoreError, StoreFull, StoreNotShared
from workers.spec import Resources

if TYPE_CHECKING:  # Ray's host process imports this, and does without torch
    from workers.run import Run, StopReason

SPOKEN, ENDED = b"s", b"e"
"""What a host process tells its service unasked: a driver has spoken, an attempt has ended."""


@dataclass(frozen=True, slots=True)
class Node:
    """One machine of a cluster: the cores, GPUs and memory that attempts can have of it."""

    cpus: float
    gpus: float
    memory_bytes: int

    def places(self, resources: Resources, worker_memory_bytes: int = 0) -> int:
        """How many workers of this shape it can hold at once."""
        most = [
            having / asked
            for having, asked in (
                (self.cpus, resources.cpus_per_worker),
                (self.gpus, resources.gpus_per_worker),
                (self.memory_bytes, worker_memory_bytes),
            )
            if asked
        ]
        return max(0, int(min(most)))

    def without_one(self, resources: Resources) -> "Node":
        """What is left of it beside one worker."""
        return replace(
            self,
            cpus=self.cpus - resources.cpus_per_worker,
            gpus=self.gpus - resources.gpus_per_worker,
        )


@dataclass(frozen=True, slots=True)
class Unclaimed:
    """Cores and GPUs that nobody holds at the moment, by the cluster's own count."""

    cpus: float
    gpus: float


LossCause = Literal[
    "worker_lost", "out_of_memory", "store_unreachable", "store_full", "store_not_shared"
]


def loss_by_store(error: StoreError) -> tuple[str, LossCause]:
    """What the store did to an attempt that could not even write its outcome: detail and cause."""
    match error:
        case StoreNotShared():
            return str(error), "store_not_shared"
        case StoreFull():
            return f"its outcome could not be written: {error}", "store_full"
        case _:
            return f"its outcome could not be written: {error}", "store_unreachable"


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a cluster can give to attempts. A worker is on one node; those of an attempt may be on
    several."""

    nodes: tuple[Node, ...]

    @property
    def cpus(self) -> float:
        """Cores of all nodes."""
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        """GPUs of all nodes."""
        return sum(node.gpus for node in self.nodes)

    def places(self, resources: Resources, worker_memory_bytes: int = 0) -> int:
        """How many workers of this shape it can hold at once."""
        return sum(node.places(resources, worker_memory_bytes) for node in self.nodes)

    def fits(self, resources: Resources) -> bool:
        """Whether all workers would find a place at once."""
        return self.places(resources) >= resources.workers

    def minus(self, resources: Resources) -> "Capacity":
        """What is left beside these workers.

        Where they are is the cluster's choice, and guessed here: each on the fullest node that has
        room, as a packing scheduler does. A wrong guess makes an attempt wait in the cluster
        instead of in the queue.
        """
        nodes = list(self.nodes)
        for _ in range(resources.workers):
            if not nodes:
                break
            roomy = [at for at, node in enumerate(nodes) if node.places(resources)]
            if roomy:
                at = min(roomy, key=lambda at: (nodes[at].gpus, nodes[at].cpus))
            else:
                at = max(range(len(nodes)), key=lambda at: (nodes[at].cpus, nodes[at].gpus))
            nodes[at] = nodes[at].without_one(resources)
        return Capacity(tuple(nodes))


@dataclass(frozen=True, slots=True)
class Sighting:
    """What is to be seen of an executor.

    ``pending``: asked for, its process is not there yet. ``running``: it works on its attempt.
    ``idle``: its process lives and works on nothing. ``gone``: no process and no actor is left.
    ``cause`` says why an attempt without an outcome was lost, where there is evidence of more
    than its loss.
    With several workers, process and host are those of worker 0, and ``gone`` means all of them.
    """

    state: Literal["pending", "running", "idle", "gone"]
    pid: int | None = None
    host: str | None = None
    detail: str | None = None
    cause: LossCause = "worker_lost"


class ClusterDown(Exception):
    """The cluster does not answer; the watcher joins it again."""


class ClusterUnavailable(Exception):
    """A cluster could not be started or joined; the message says why."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What the driver of a study has said since it was asked last, each line a message.

    ``is_gone`` says that there will be no more, and ``detail`` why as far as that is seen.
    """

    lines: tuple[str, ...] = ()
    is_gone: bool = False
    detail: str = ""


class Drivers(Protocol):
    """Runs the drivers of studies, each named by an id.

    Every method raises ClusterDown when the cluster cannot be reached.
    """

    def start_driver(self, name: str, setup: str) -> None:
        """Start a driver with this setup; returns before it has begun. Idempotent by name."""
        ...

    def exchange(self, name: str, lines: Sequence[str]) -> Heard:
        """Tell a driver these lines, in order, and hear what it has said; waits for nothing.

        One that somebody else has started is gone.
        """
        ...

    def end_driver(self, name: str) -> None:
        """End a driver, with all that it holds."""
        ...


class Cluster(Drivers, Protocol):
    """Runs attempts in executors, each named by an id: a process for each of the attempt's workers.

    Every method but ``close`` raises ClusterDown when the cluster cannot be reached.
    """

    #: Whether the cluster ends with this process; a joined one goes on without it.
    own: bool

    @property
    def session(self) -> str:
        """Identity of the running cluster; executors of another session are gone."""
        ...

    def capacity(self) -> Capacity:
        """The ceiling of what attempts can ever have."""
        ...

    def unclaimed(self) -> Unclaimed | None:
        """What others leave of a joined cluster; None of an own one, which nobody else uses."""
        ...

    def reserve(self, resources: Resources) -> str:
        """The id of an executor for an attempt of this shape: a waiting one, or a new name.

        Nothing runs yet: the caller stores the id first, so that no executor is ever unknown.
        """
        ...

    def launch(self, executor_id: str, run: "Run") -> None:
        """Let the executor begin the run; returns before it has begun. Idempotent by id."""
        ...

    def look(self, executor_id: str) -> Sighting:
        """What is to be seen of the executor now."""
        ...

    def request_stop(self, executor_id: str, reason: "StopReason") -> None:
        """Ask the run to publish a checkpoint and end; it ends with this outcome."""
        ...

    def kill(self, executor_id: str) -> None:
        """End the executor's processes at once; ``look`` says ``gone`` when nothing is left."""
        ...

    def release(self, executor_id: str, *, reusable: bool) -> None:
        """The attempt's outcome is recorded: keep the executor for the next one, or end it."""
        ...

    def tend(self, known: frozenset[str], spares: int = 1) -> None:
        """Regular care: so many warm spares as far as there is room, and an end to executors and
        drivers of studies that are not among ``known``."""
        ...

    def listen(self, *, spoken: Callable[[], None], ended: Callable[[], None]) -> None:
        """Let these be called, in a thread: ``spoken`` when a driver has said something, ``ended``
        when an attempt has, or its process. They may be called for nothing, and not be called
        where another process has started the attempt."""
        ...

    def rejoin(self) -> None:
        """Leave what is left of the cluster and start or join it anew; the session may change."""
        ...

    def close(self) -> None:
        """End what is this process's own; leave a joined cluster's executors at work."""
        ...
