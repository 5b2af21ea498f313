"""What a job may ask for at most: more would let it wait for ever."""

import contextlib
from typing import Literal

from service.cluster.base import Capacity, Cluster, ClusterDown
from service.errors import FieldError, NotReady
from workers.spec import Resources


class Ceiling:
    """What the cluster has; while it does not answer, what it had when it was last asked, so that
    jobs are taken in meanwhile. It is asked when this is made."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._last: Capacity | None = None
        with contextlib.suppress(NotReady):
            self.now()

    def now(self) -> Capacity:
        """Raises NotReady where the cluster has never answered."""
        try:
            self._last = self._cluster.capacity()
        except ClusterDown as error:
            if self._last is None:
                message = "The Ray cluster does not answer; try again in a minute."
                raise NotReady(message) from error
        return self._last


def beyond(ceiling: Capacity, wanted: Resources, worker_memory_bytes: int) -> list[FieldError]:
    """What of it no node, or all nodes together, can give: a field each, and the numbers."""
    errors = []
    for field, asked, most, unit in (
        ("cpus_per_worker", wanted.cpus_per_worker, _most(ceiling, "cpus"), "cores"),
        ("gpus_per_worker", wanted.gpus_per_worker, _most(ceiling, "gpus"), "GPUs"),
    ):
        if asked > most:
            message = f"asks for {asked} {unit} of {most:g} on the largest node"
            errors.append(FieldError(f"/spec/resources/{field}", message))
    memory_bytes = _most(ceiling, "memory_bytes")
    if worker_memory_bytes > memory_bytes:
        errors.append(
            FieldError(
                "/spec/trainer",
                f"needs about {worker_memory_bytes / 1e9:.1f} GB of memory, and the largest "
                f"node has {memory_bytes / 1e9:.1f} GB; choose a smaller network, "
                "batch_size, noise_samples or importance_samples, or less data",
            )
        )
    places = ceiling.places(wanted, worker_memory_bytes)
    if not errors and places < wanted.workers:
        message = (
            f"asks for {wanted.workers} workers with {wanted.cpus_per_worker} core(s), "
            f"{wanted.gpus_per_worker} GPU(s) and about {worker_memory_bytes / 1e9:.1f} GB each; "
            f"{places} of them fit at once"
        )
        errors.append(FieldError("/spec/resources/workers", message))
    return errors


def _most(ceiling: Capacity, what: Literal["cpus", "gpus", "memory_bytes"]) -> float:
    """What the largest node has of it."""
    return max((getattr(node, what) for node in ceiling.nodes), default=0.0)
