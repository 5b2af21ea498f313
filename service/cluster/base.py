"""What the watcher asks of a cluster, whichever it is."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

from workers.spec import Resources

if TYPE_CHECKING:  # Ray's host process imports this, and does without torch
    from workers.run import Run, StopReason


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a cluster can ever give to attempts: cores and GPUs of all nodes, and what one worker
    can have at most, which is what a single node has."""

    cpus: float
    gpus: float
    memory_bytes: int
    worker_cpus: float
    worker_gpus: float

    def fits(self, resources: Resources) -> bool:
        """Whether the resources would fit into all of it."""
        return (
            resources.cpus_per_worker <= self.worker_cpus
            and resources.gpus_per_worker <= self.worker_gpus
            and resources.workers * resources.cpus_per_worker <= self.cpus
            and resources.workers * resources.gpus_per_worker <= self.gpus
        )

    def minus(self, resources: Resources) -> "Capacity":
        """What is left beside the resources."""
        return replace(
            self,
            cpus=self.cpus - resources.workers * resources.cpus_per_worker,
            gpus=self.gpus - resources.workers * resources.gpus_per_worker,
        )


LossCause = Literal["worker_lost", "out_of_memory", "store_unreachable"]


@dataclass(frozen=True, slots=True)
class Sighting:
    """What is to be seen of an executor.

    ``pending``: asked for, its process is not there yet. ``running``: it works on its attempt.
    ``idle``: its process lives and works on nothing. ``gone``: no process and no actor is left.
    ``cause`` says why an attempt without an outcome was lost, where there is evidence of more
    than its loss.
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


class Cluster(Protocol):
    """Runs attempts in executors, each a process of its own, named by an id.

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
        """End the executor's process at once; ``look`` says ``gone`` when nothing is left."""
        ...

    def release(self, executor_id: str, *, reusable: bool) -> None:
        """The attempt's outcome is recorded: keep the executor for the next one, or end it."""
        ...

    def tend(self, known: frozenset[str]) -> None:
        """Regular care: a warm spare, and an end to executors that are not among ``known``."""
        ...

    def rejoin(self) -> None:
        """Leave what is left of the cluster and start or join it anew; the session may change."""
        ...

    def close(self) -> None:
        """End what is this process's own; leave a joined cluster's executors at work."""
        ...
