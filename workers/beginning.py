"""Where an attempt begins: at a checkpoint of its own job, at one of another, or at nothing."""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from workers.artifacts import ArtifactStore
from workers.checkpoint import Manifest, decode_tensors, parse_manifest, verify
from workers.errors import ArtifactNotFound, CheckpointError
from workers.events import NoticeRecord
from workers.kinds import taken_over
from workers.parallel import Peers
from workers.publish import KeptCheckpoint
from workers.spec import JobSpec, Start

Tensors = dict[str, Tensor]


class Origin(BaseModel):
    """Where a fork begins: its copy of a checkpoint of another job, and what it takes over."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefix: str
    start: Start


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where an attempt begins: the train state, or None for the seed's weights; the prefix of the
    checkpoint that it is from; the damaged ones that were passed over, with the reason; and
    whether it is the job's own."""

    tensors: Tensors | None = None
    prefix: str | None = None
    passed_over: Mapping[str, str] = field(default_factory=dict)
    is_resumed: bool = False


def beginning(
    store: ArtifactStore, spec: JobSpec, resume_from: Sequence[str], origin: Origin | None
) -> Beginning:
    """Where a run of the spec begins, or goes on from.

    ``resume_from`` are prefixes of the job's own checkpoints, the latest first, which go before the
    origin: the first one that is whole is taken. Raises CheckpointError where none is, StoreError.
    """
    damaged: dict[str, str] = {}
    for prefix in resume_from:
        try:
            _, tensors = _file(store, prefix, "train_state")
            return Beginning(tensors, prefix, damaged, is_resumed=True)
        except (CheckpointError, ArtifactNotFound) as error:
            damaged[prefix] = str(error)
            if prefix == resume_from[-1]:
                raise
    if origin is None:
        return Beginning()
    _, tensors = _file(store, origin.prefix, origin.start)
    return Beginning(taken_over(spec, origin.start, tensors), origin.prefix)


def require_same(begun_at: Beginning, peers: Peers, device: torch.device) -> None:
    """Raises CheckpointError on every worker where they read different checkpoints.

    Each of them reads by itself, and one that found damage where the others found none would go on
    from an earlier step; the sums of such workers mean nothing.
    """
    if peers.size == 1:
        return
    read = torch.zeros(peers.size, dtype=torch.int64, device=device)
    read[peers.rank] = zlib.crc32((begun_at.prefix or "").encode())
    if len(set(peers.all_reduce(read).tolist())) > 1:
        raise CheckpointError(
            "the workers did not all find the same checkpoint whole; see their logs, and retry"
        )


def notices_of(begun_at: Beginning, step: int, *, on_cpu: bool) -> Iterator[NoticeRecord]:
    """How a job was resumed from a checkpoint of its own, in sentences; nothing if it was not."""
    if not begun_at.is_resumed or begun_at.prefix is None:
        return
    now = datetime.now(UTC)
    for prefix, trouble in begun_at.passed_over.items():
        message = (
            f"Checkpoint {_named(prefix)} cannot be resumed from, the one before is: {trouble}"
        )
        yield NoticeRecord(at=now, code="checkpoint_damaged", message=message)
    exactly = ": bit for bit as if it had not stopped" if on_cpu else ""
    message = (
        f"Training is resumed from checkpoint {_named(begun_at.prefix)} at step {step}, with its "
        f"whole train state{exactly}."
    )
    yield NoticeRecord(at=now, code="resumed", message=message)


def usable(earlier: Sequence[KeptCheckpoint], begun_at: Beginning) -> Sequence[KeptCheckpoint]:
    """Earlier checkpoints, none with a train state that is damaged: that one is written again."""
    return [
        kept.model_copy(update={"has_train_state": False})
        if kept.prefix in begun_at.passed_over
        else kept
        for kept in earlier
    ]


def _named(prefix: str) -> str:
    """A checkpoint's prefix in words."""
    *_, attempt, _, identifier = prefix.split("/")
    return f"{identifier} of attempt {attempt}"


def _file(store: ArtifactStore, prefix: str, what: Start) -> tuple[Manifest, Tensors]:
    """A checkpoint's train state or weights, checked against its manifest."""
    manifest = parse_manifest(store.get(f"{prefix}/manifest.json"))
    with store.open_file(f"{prefix}/{what}.safetensors") as path:
        verify(path, manifest.train_state if what == "train_state" else manifest.weights)
        return manifest, decode_tensors(path, is_verified=True)
