"""What is allowed in a study, and may deceive: about its objective, its rungs and its limits."""

import math
from collections.abc import Iterator
from typing import assert_never

from service.errors import FieldError
from service.studies.extent import epochs, trials
from service.studies.guard import (
    DISTANCES,
    Group,
    better,
    groups_of,
    measure_of,
    verdict,
    verdict_on,
)
from service.studies.measuring import HELD_OUT, ROWS, SAMPLES, reference_rows
from service.studies.objective import most_epochs, objectives, tuned
from service.studies.request import (
    Asha,
    HyperBand,
    MedianStopping,
    NoScheduler,
    Pbt,
    Scheduler,
    StudyRequest,
)
from workers.spec import TrainSpec

_LIMITS = ("max_epochs", "max_wall_s")


def cautions(request: StudyRequest, count: int | None) -> tuple[FieldError, ...]:
    """What is allowed in a resolved request that can be carried out, and may deceive; of ``count``
    data, None where nobody knows how many."""
    return (
        *_of_bias(request),
        *_of_direction(request),
        *_of_early_rungs(request),
        *_of_reference(request, count),
        *_of_confirmation(request),
    )


def _of_bias(request: StudyRequest) -> Iterator[FieldError]:
    for at, objective in objectives(request):
        metric = objective.metric
        biasing = [p for p in tuned(request) if verdict(metric, p) == "biased"]
        if biasing and verdict_on(metric, tuned(request)) == "biased":
            yield FieldError(f"{at}/metric", f"is biased by {', '.join(biasing)}, which are tuned")


def _of_direction(request: StudyRequest) -> Iterator[FieldError]:
    for at, objective in objectives(request):
        right = better(objective.metric)
        if right is not None and right != objective.mode:
            yield FieldError(f"{at}/mode", f"looks for the worst: {right} is better")


def _of_early_rungs(request: StudyRequest) -> Iterator[FieldError]:
    """Early ranks of noises reverse: no rung below a third of the epochs, as in the presets."""
    is_noise = any(Group.NOISE in groups_of(pointer) for pointer in tuned(request))
    at, first = _first_rung(request.scheduler, most_epochs(request))
    third = -(-most_epochs(request) // 3)
    if is_noise and first is not None and first < third:
        yield FieldError(
            at,
            f"compares trials at epoch {first}, and early ranks of noises reverse; "
            f"better not before epoch {third}, a third of the epochs",
        )


def _first_rung(scheduler: Scheduler, most: int) -> tuple[str, int | None]:
    """The epoch after which trials are first compared, with the pointer that says so."""
    match scheduler:
        case NoScheduler():
            return "/scheduler", None
        case Asha() | MedianStopping():
            return "/scheduler/grace_epochs", scheduler.grace_epochs
        case HyperBand():
            return "/scheduler/kind", _least_of_hyperband(most, scheduler.reduction_factor)
        case Pbt():
            return "/scheduler/interval_epochs", scheduler.interval_epochs
        case _:
            assert_never(scheduler)


def _least_of_hyperband(most: int, factor: float) -> int:
    """The first rung of its largest bracket, R·η^−s, which Ray leaves out where it is below 1."""
    brackets = round(math.log(most, factor))
    rungs = (int(most * factor**-s) for s in range(brackets + 1))
    return min(rung for rung in rungs if rung >= 1)


def _of_reference(request: StudyRequest, count: int | None) -> Iterator[FieldError]:
    """Distances to few data vary by more than the models differ; said of the first that ranks."""
    for _, objective in objectives(request):
        measure = measure_of(objective.metric)
        rows = reference_rows(request, objective.metric, count)
        if measure is None or measure[0] not in DISTANCES or rows is None or rows >= ROWS:
            continue
        spec = request.spec
        is_by_samples = isinstance(spec, TrainSpec) and (
            spec.trainer.quality is not None and rows == spec.trainer.quality.samples
        )
        at = SAMPLES if is_by_samples else HELD_OUT
        yield FieldError(
            f"/spec{at}",
            f"lets {objective.metric} compare with {rows:,} held-out data, where {ROWS:,} would be "
            "better: it varies more, and more configurations cannot be told apart",
        )
        return


def _of_confirmation(request: StudyRequest) -> Iterator[FieldError]:
    """What comes on top of the search, where a limit of that may be taken for one of the study, or
    where it may well be the larger part."""
    _, confirmation = trials(request)
    in_both = epochs(request)
    each = "" if in_both is None else f" of at most {most_epochs(request)} epochs each"
    added = f"up to {confirmation} trial(s) on fresh seeds{each}"
    is_dearer = in_both is not None and in_both[1] > in_both[0]
    limit = next((name for name in _LIMITS if getattr(request.budget, name) is not None), None)
    if limit is not None:
        more = ", more epochs than the search has" if is_dearer else ""
        wrong = f"bounds the search alone; the confirmation comes on top: {added}{more}"
        yield FieldError(f"/budget/{limit}", wrong)
    elif is_dearer:
        wrong = f"may take more epochs than the search, on top of which it comes: {added}"
        yield FieldError("/confirmation", wrong)
