"""What a study would do, before it is submitted: trials, epochs, time, room, and what holds it up.

Every number is a bound: a trial that a scheduler stops costs less.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from service.cluster.base import Capacity
from service.errors import FieldError
from service.paces import Paces
from service.studies.allotment import allotment
from service.studies.cautions import cautions
from service.studies.extent import configurations, epochs, takeovers, trials
from service.studies.guard import metrics_of
from service.studies.objective import most_epochs, objections, valid
from service.studies.request import StudyRequest
from workers.costs import Estimate
from workers.kinds import AnySpec, is_open_ended


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """What a study would do at most; of its resolved request.

    ``trials`` are those of the search, ``epochs`` of all trials together, None where a run ends
    when it has converged. ``duration_s`` and ``core_s`` rest on measured paces of jobs like its
    base, and are None where none was measured. ``memory_bytes`` is of the trials that run at one
    time, ``storage_bytes`` of all. ``objections`` are the guard's, where it is overridden.
    """

    request: StudyRequest
    configurations: int
    trials: int
    confirmation_trials: int
    epochs: int | None
    cpus: int
    gpus: int
    memory_bytes: int
    storage_bytes: int
    duration_s: float | None
    core_s: float | None
    basis: str
    waits_for: str
    metrics: tuple[str, ...]
    objections: tuple[FieldError, ...]
    cautions: tuple[FieldError, ...]


def storage_bytes(request: StudyRequest, costs: Sequence[Estimate]) -> int:
    """The room that all trials may need, if each costs as much as the dearest of these."""
    forks = takeovers(request) * len(request.seeds)
    return max(each.storage_bytes for each in costs) * (sum(trials(request)) + forks)


def plan(
    request: StudyRequest,
    costs: Sequence[Estimate],
    count: int,
    paces: Paces,
    free: Capacity,
    held_by: str,
) -> StudyPlan:
    """The plan of a resolved request whose specs cost so and whose base has ``count`` data, beside
    what is free now, and who has the rest."""
    found = configurations(request)
    search, confirmation = trials(request)
    forks = takeovers(request) * len(request.seeds)
    in_both = epochs(request)
    duration_s, core_s, basis = _time(request, search, confirmation, paces)
    held = allotment(request)
    running = min(request.concurrency, search)
    resources = request.spec.resources
    return StudyPlan(
        request=request,
        configurations=found,
        trials=search + forks,
        confirmation_trials=confirmation,
        epochs=None if in_both is None else sum(in_both),
        cpus=held.workers * held.cpus_per_worker,
        gpus=held.workers * held.gpus_per_worker,
        memory_bytes=max(c.worker_memory_bytes for c in costs) * resources.workers * running,
        storage_bytes=storage_bytes(request, costs),
        duration_s=duration_s,
        core_s=core_s,
        basis=basis,
        waits_for="nothing: it would start at once"
        if free.fits(held)
        else f"resources held by {held_by}",
        metrics=_metrics(request),
        objections=tuple(objections(request)),
        cautions=cautions(request, count),
    )


def _metrics(request: StudyRequest) -> tuple[str, ...]:
    """Those that trials have and that could rank them, the objective aside."""
    emitted = metrics_of(request.spec)
    return tuple(m for m in valid(request) if m in emitted and m != request.objective.metric)


def _time(
    request: StudyRequest, search: int, confirmation: int, paces: Paces
) -> tuple[float | None, float | None, str]:
    like = paces.of_its_like(request.spec)
    if like is None:
        return None, None, "Nothing like a trial of it has run here lately, so no time is known."
    trial_s = like.duration_s(_longest(request.spec, most_epochs(request)))
    concurrency, budget = request.concurrency, request.budget
    searched_s = math.ceil(search / concurrency) * trial_s
    if budget.max_epochs is not None and not is_open_ended(request.spec):
        whole = search * most_epochs(request)
        searched_s *= min(1.0, budget.max_epochs / whole)
    if budget.max_wall_s is not None:
        searched_s = min(searched_s, budget.max_wall_s)
    confirmed_s = math.ceil(confirmation / concurrency) * trial_s
    resources = request.spec.resources
    cores = resources.workers * resources.cpus_per_worker
    core_s = (searched_s * min(concurrency, search) + confirmation * trial_s) * cores
    basis = (
        f"Rests on the pace of {like.attempts} attempt(s) like a trial of the base spec, without "
        "what measuring quality takes; trials that are stopped early take less."
    )
    return searched_s + confirmed_s, core_s, basis


def _longest(spec: AnySpec, epochs: int) -> AnySpec:
    """The base spec with the epochs of the longest trial."""
    if not hasattr(spec.trainer, "epochs"):
        return spec
    trainer = spec.trainer.model_copy(update={"epochs": epochs})
    return spec.model_copy(update={"trainer": trainer})
