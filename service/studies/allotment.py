"""What a study holds while it runs: places for its trials, each for the most demanding one."""

from collections.abc import Iterable

from pydantic import ValidationError

from service.cluster.base import Capacity
from service.jobs import Job
from service.studies.configuring import spec_of
from service.studies.ledger import Study
from service.studies.pointers import NoSuchPlace, encloses
from service.studies.request import StudyRequest
from service.studies.space import AnyDimension
from workers.spec import Resources

_RESOURCES = "/resources"


def of_one_trial(request: StudyRequest) -> Resources:
    """What each place has: the most of every resource that a trial may ask for."""
    asked = [request.spec.resources]
    for pointer, dimension in request.space.items():
        if encloses(_RESOURCES, pointer) or encloses(pointer, _RESOURCES):
            asked += _asked(request, pointer, dimension)
    return Resources.model_validate(
        {field: max(getattr(one, field) for one in asked) for field in Resources.model_fields}
    )


def allotment(request: StudyRequest) -> Resources:
    """What all places hold together, as workers.

    Not validated as a spec's own resources, whose bounds are those of one job.
    """
    one = of_one_trial(request)
    return one.model_copy(update={"workers": one.workers * request.concurrency})


def places(request: StudyRequest, free: Capacity) -> int:
    """How many trials can run at one time, at most the study's concurrency; 0 if not even one."""
    one = of_one_trial(request)
    for count in range(request.concurrency):
        if not free.fits(one):
            return count
        free = free.minus(one)
    return request.concurrency


def without(free: Capacity, request: StudyRequest, count: int) -> Capacity:
    """What is left beside so many places."""
    one = of_one_trial(request)
    for _ in range(count):
        free = free.minus(one)
    return free


def beside(capacity: Capacity, studies: Iterable[Study], at_work: Iterable[Job]) -> Capacity:
    """What running studies leave of all that there is, with their places, and the jobs at work
    that are no trials of theirs."""
    free, holding = capacity, set[str | None]()
    for study in studies:
        free = without(free, study.request, places(study.request, capacity))
        holding.add(study.id)
    for job in at_work:
        if job.study_id not in holding:
            free = free.minus(job.spec.resources)
    return free


def _asked(request: StudyRequest, pointer: str, dimension: AnyDimension) -> list[Resources]:
    found = []
    for value in dimension.options() or (dimension.at(0.0), dimension.at(1.0)):
        try:
            found.append(spec_of(request.spec, {pointer: value}).resources)
        except (NoSuchPlace, ValidationError):  # where it stands beside others alone
            continue
    return found
