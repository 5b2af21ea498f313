"""From what ended a run to the outcome that it leaves: reasons, and sentences for people."""

import traceback
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from workers.errors import (
    ArtifactExists,
    ArtifactNotFound,
    DataError,
    Diverged,
    ExtractorUnavailable,
    InvalidSpread,
    PeerLost,
    SpecMismatch,
    StoreError,
    StoreFull,
    StoreNotShared,
    VersionMismatch,
    WorkerError,
)
from workers.events import Finished, OutcomeReason
from workers.ica.failures import Unfit

STOPPED: Mapping[OutcomeReason, str] = {
    "cancelled": "Cancelled by request; the last checkpoint is kept.",
    "paused": "Paused by request, with a checkpoint.",
    "time_limit": "The time limit (limits.max_wall_s) is used up; the last checkpoint is kept.",
    "service_stopped": "The service was stopped; the job goes on from its last checkpoint when the "
    "service is started again.",
    "stopped_by_study": "Stopped by its study, as others promise more; its last checkpoint "
    "is kept.",
    "posterior_collapse": "Stopped by its study: the posterior has become the prior; its last "
    "checkpoint is kept.",
    "dead_latents": "Stopped by its study: most latents carry nothing of the data; its last "
    "checkpoint is kept.",
    "at_rung": "Waits with a checkpoint for the other trials of its study.",
    "interrupted": "Interrupted; the job goes on from its last checkpoint.",
}


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended, for its outcome; ``detail`` is for the log."""

    reason: OutcomeReason
    message: str
    step: int = 0
    detail: str | None = None


def finished(end: Finished, asked: OutcomeReason | None) -> Ending:
    """The ending of a run without an error; ``asked`` is why it was to stop, if it was."""
    if end.reason in ("interrupted", "at_rung"):
        reason = asked or end.reason
        return Ending(reason, STOPPED[reason], end.step)
    return Ending(end.reason, end.message, end.step)


def failed(error: Exception) -> Ending:
    """The ending of a run with an error."""
    if isinstance(error, WorkerError):
        step = error.step if isinstance(error, Diverged) else 0
        return Ending(_reason(error), str(error), step)
    if _is_want_of_memory(error):
        return Ending(
            "out_of_memory", "The worker ran out of memory; use a smaller batch or network."
        )
    return Ending(
        "internal_error",
        f"The trainer failed with {type(error).__name__}; this is a defect of spreadtrain.",
        detail="".join(traceback.format_exception(error)),
    )


def _is_want_of_memory(error: Exception) -> bool:
    """Whether memory was asked for in vain; on the CPU torch says so in words alone."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def _reason(error: WorkerError) -> OutcomeReason:
    match error:
        case Diverged():
            return "diverged"
        case Unfit(reason=reason):
            return reason
        case SpecMismatch() | InvalidSpread():
            return "invalid"
        case VersionMismatch():
            return "version_mismatch"
        case DataError():
            return "data_unavailable"
        case ExtractorUnavailable():
            return "extractor_unavailable"
        case ArtifactNotFound() | ArtifactExists():
            return "internal_error"
        case StoreFull():
            return "store_full"
        case StoreNotShared():
            return "store_not_shared"
        case StoreError():
            return "store_unreachable"
        case PeerLost():
            return "worker_lost"
        case _:
            return "internal_error"
