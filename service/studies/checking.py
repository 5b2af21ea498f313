"""Whether a study can be carried out: each thing that is wrong, with its pointer in the request.

The corners of every dimension are put into the base spec, beside every value of the dimensions
that decide what is there: those of its ``when``, a choice of an object around it, and the ``kind``
of one. The other dimensions cannot make a difference, as a spec's fields are checked one by one.
"""

from collections.abc import Iterator, Mapping

from pydantic import ValidationError

from service.errors import DependentObjective, FieldError, InvalidStudy
from service.studies.configuring import grid, place_of, spec_of
from service.studies.guard import metrics_of
from service.studies.objective import (
    most_epochs,
    objections,
    objectives,
    resolved,
    unknown,
    valid,
)
from service.studies.pointers import NoSuchPlace, encloses, escaped, parent_of
from service.studies.population import NAMED_MAX, SCALE, named_epochs
from service.studies.request import (
    Asha,
    CmaEsSearch,
    GpSearch,
    GridSearch,
    HyperBand,
    MedianStopping,
    NoScheduler,
    Pbt,
    RandomSearch,
    StudyRequest,
    TpeSearch,
)
from service.studies.space import (
    AnyDimension,
    Choice,
    Grid,
    LogUniform,
    Uniform,
    form_of,
    in_order,
    is_active,
    same,
)
from service.validation import plain_message
from workers.kinds import AnySpec, needs_checkpoint
from workers.spec import DeltaVae, IcaSpec, PaperSpec, TrainSpec

_SEED = "/seed"
_INSIDE = 0.37  # a place that is on no lattice
_AROUND_MAX = 4096


def problems(request: StudyRequest) -> tuple[FieldError, ...]:
    """All that is wrong with a resolved request that is well formed, but for the guard's word."""
    found = [*_of_conditions(request.space)]
    if not found:
        found = [*_of_space(request)]
    return (
        *_of_spec(request.spec),
        *found,
        *unknown(request),
        *_of_search(request),
        *_of_scheduler(request),
        *_of_health(request),
        *_of_seeds(request),
    )


def require(request: StudyRequest) -> StudyRequest:
    """The request, resolved; raises InvalidStudy, and DependentObjective unless overridden."""
    request = resolved(request)
    found = problems(request)
    if found:
        raise InvalidStudy(_sentence(found[0]), found)
    objected = tuple(objections(request))
    if objected and not request.override_guard:
        metrics = valid(request)
        others = f" Valid are: {', '.join(metrics)}." if metrics else ""
        raise DependentObjective(_sentence(objected[0]) + others, objected, metrics)
    return request


def is_overridden(request: StudyRequest) -> bool:
    """Whether a resolved request ranks by what the guard refuses, which marks the study."""
    return request.override_guard and any(objections(request))


def _sentence(error: FieldError) -> str:
    return f"{error.pointer} {error.message}."


def _of_spec(spec: AnySpec) -> Iterator[FieldError]:
    if needs_checkpoint(spec):
        wrong = "cannot be studied: such jobs begin from a checkpoint of another one, as forks"
        yield FieldError("/spec/trainer/kind", wrong)
    if isinstance(spec, PaperSpec):
        wrong = "cannot be studied: a figure of the paper ends in verdicts, and has nothing to rank"
        yield FieldError("/spec/trainer/kind", wrong)


def _at(pointer: str, *rest: str | int) -> str:
    return "".join((f"/space/{escaped(pointer)}", *(f"/{escaped(str(key))}" for key in rest)))


def _of_conditions(space: Mapping[str, AnyDimension]) -> Iterator[FieldError]:
    for pointer, dimension in space.items():
        for named, allowed in dimension.when.items():
            other = space.get(named)
            if not isinstance(other, Choice | Grid):
                wrong = "must name a dimension of the space that is a choice or a grid"
                yield FieldError(_at(pointer, "when", named), wrong)
                continue
            for index, value in enumerate(allowed):
                if not any(same(value, option) for option in other.options()):
                    wrong = f"is no value of {named}"
                    yield FieldError(_at(pointer, "when", named, index), wrong)
    try:
        in_order(space)
    except ValueError as circle:
        yield FieldError(_at(str(circle), "when"), "depends on itself")


def _of_space(request: StudyRequest) -> Iterator[FieldError]:
    space = request.space
    broken: set[str] = set()
    # A dimension is judged after those that decide what is there.
    for pointer in sorted(in_order(space), key=lambda at: (len(_around(space, at)), at)):
        around = _around(space, pointer)
        if broken & set(around):
            continue
        if encloses(_SEED, pointer):
            yield FieldError(_at(pointer), "is not searched: give the study its seeds")
            continue
        wrong = _first_misfit(request, pointer, around)
        if wrong is not None:
            broken.add(pointer)
            yield wrong


def _around(space: Mapping[str, AnyDimension], pointer: str) -> dict[str, AnyDimension]:
    """The dimensions that decide whether and as what the place of a pointer exists."""
    found: dict[str, AnyDimension] = {}
    left = [pointer]
    while left:
        inner = left.pop()
        for other in space:
            decides = other in space[inner].when or (
                isinstance(space[other], Choice | Grid)
                and (encloses(other, inner) or _is_kind_around(other, inner))
            )
            if decides and other not in found and other != pointer:
                found[other] = space[other]
                left.append(other)
    return found


def _is_kind_around(kind: str, pointer: str) -> bool:
    return kind.endswith("/kind") and encloses(parent_of(kind), pointer)


def _first_misfit(
    request: StudyRequest, pointer: str, around: Mapping[str, AnyDimension]
) -> FieldError | None:
    dimension = request.space[pointer]
    for number, beside in enumerate(grid(around)):
        if number >= _AROUND_MAX:
            return FieldError(_at(pointer), "depends on too many choices; make the space smaller")
        if not is_active(dimension, beside):
            continue
        for rest, value in _corners(dimension):
            wrong = _misfit(request, {**beside, pointer: value}, beside, value)
            if wrong is not None:
                within, message = wrong
                return FieldError(_at(pointer, *rest, *within), message)
    return None


def corners(request: StudyRequest) -> Iterator[tuple[FieldError, dict[str, object]]]:
    """Configurations at the corners of a valid space: the place of each in the request, where it
    is not one of the base's, and the values that differ from the base."""
    for pointer, dimension in request.space.items():
        around = _around(request.space, pointer)
        for beside in grid(around):
            if is_active(dimension, beside):
                for rest, value in _corners(dimension):
                    yield FieldError(_at(pointer, *rest), ""), {**beside, pointer: value}


def _corners(dimension: AnyDimension) -> Iterator[tuple[tuple[str | int, ...], object]]:
    form = form_of(dimension)
    if isinstance(dimension, Choice | Grid):
        yield from (((form, index), value) for index, value in enumerate(dimension.options()))
        return
    yield (form, 0), dimension.at(0.0)
    yield (form, 1), dimension.at(1.0)
    yield (form,), dimension.at(_INSIDE)


def _misfit(
    request: StudyRequest,
    configuration: Mapping[str, object],
    beside: Mapping[str, object],
    value: object,
) -> tuple[tuple[str | int, ...], str] | None:
    """Why the base spec cannot have these values, as the end of a sentence, with the keys within
    ``value`` that it is about, where that is an object; None if it can."""
    try:
        found = spec_of(request.spec, configuration)
    except NoSuchPlace as nowhere:
        return (), str(nowhere)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        within = place_of(problem["loc"], value) if isinstance(value, dict) else ()
        where = f" where {', '.join(f'{at} is {value!r}' for at, value in beside.items())}"
        suffix = where if beside else ""
        if problem["type"] == "extra_forbidden":
            return within, f"is no field of the spec{suffix}"
        if problem["type"] == "missing":
            return within, f"needs {problem['loc'][-1]!r}{suffix}"
        return within, f"{plain_message(problem)}{suffix}"
    for _, objective in objectives(request):
        metric = objective.metric
        if metric in metrics_of(request.spec) and metric not in metrics_of(found):
            return (), f"would make trials without {metric}, an objective"
    return None


def _of_search(request: StudyRequest) -> Iterator[FieldError]:
    match request.search:
        case GridSearch():
            for pointer, dimension in request.space.items():
                if dimension.options() is None:
                    wrong = "is not finite: a grid needs a choice, a grid, or uniform with a step"
                    yield FieldError(_at(pointer), wrong)
        case CmaEsSearch():
            if len(request.space) < 2:
                wrong = "must be another one for a single dimension, of which CMA-ES adapts nothing"
                yield FieldError("/search/kind", wrong)
            if request.second_objective is not None:
                wrong = "has no place in CMA-ES, which follows one objective"
                yield FieldError("/second_objective", wrong)
            for pointer, dimension in request.space.items():
                if isinstance(dimension, Choice) or dimension.when:
                    wrong = "has no place in CMA-ES, which moves numbers that always exist"
                    yield FieldError(_at(pointer), wrong)
        case _:
            return


def _of_scheduler(request: StudyRequest) -> Iterator[FieldError]:
    scheduler = request.scheduler
    if isinstance(request.spec, IcaSpec):
        if not isinstance(scheduler, NoScheduler):
            wrong = "must be none: fits of ica end when they converge, not after epochs"
            yield FieldError("/scheduler/kind", wrong)
        return
    match scheduler:
        case Asha() | MedianStopping() if scheduler.grace_epochs > most_epochs(request):
            wrong = f"must be at most {most_epochs(request)}, the epochs of the longest trial"
            yield FieldError("/scheduler/grace_epochs", wrong)
        case HyperBand() if isinstance(request.search, TpeSearch | GpSearch | CmaEsSearch):
            wrong = (
                f"must be another one beside {request.search.kind}: hyperband fills its brackets "
                "before any result is there to learn from; use random with it, or asha"
            )
            yield FieldError("/scheduler/kind", wrong)
        case Pbt():
            yield from _of_population(request, scheduler)
        case _:
            return


def _of_population(request: StudyRequest, scheduler: Pbt) -> Iterator[FieldError]:
    for pointer in request.space.keys() - {SCALE}:
        yield FieldError(_at(pointer), f"cannot change during a run; pbt is for {SCALE}")
    dimension = request.space.get(SCALE)
    if dimension is not None and (
        not isinstance(dimension, Uniform | LogUniform) or dimension.step is not None
    ):
        wrong = "must be uniform or loguniform without a step: pbt moves it by a fifth"
        yield FieldError(_at(SCALE), wrong)
    if not isinstance(request.search, RandomSearch):
        wrong = "must be random beside pbt, which begins with its whole population at once"
        yield FieldError("/search/kind", wrong)
    if request.budget.trials < 2:
        wrong = "must be at least 2: it is the size of the population, in which trials exchange"
        yield FieldError("/budget/trials", wrong)
    interval, most = scheduler.interval_epochs, most_epochs(request)
    if interval >= most:
        wrong = f"must be below {most}, the epochs of a trial, or nothing is ever exchanged"
        yield FieldError("/scheduler/interval_epochs", wrong)
    trainer = request.spec.trainer
    if isinstance(request.spec, TrainSpec):
        named = len(named_epochs(request.spec, interval))
        if named > NAMED_MAX:
            wrong = (
                f"makes {named} named checkpoints, one at each exchange and those that the spec "
                f"names, where {NAMED_MAX} are the most; make it longer"
            )
            yield FieldError("/scheduler/interval_epochs", wrong)
    if isinstance(trainer, DeltaVae):
        if trainer.spread.schedule is not None:
            wrong = "must be null under pbt, whose answer is a schedule of the scale"
            yield FieldError("/spec/trainer/spread/schedule", wrong)
        if trainer.learned_spread is not None:
            wrong = "must be null under pbt: what is learned of a spread depends on its scale"
            yield FieldError("/spec/trainer/learned_spread", wrong)


def _of_health(request: StudyRequest) -> Iterator[FieldError]:
    if request.stop_unhealthy is not None and not isinstance(request.spec, TrainSpec):
        wrong = "must be null: such trials have no latents that say how they are"
        yield FieldError("/stop_unhealthy", wrong)


def _of_seeds(request: StudyRequest) -> Iterator[FieldError]:
    if len(request.seeds) > 1 and _ends_by_itself(request):
        # Results are means over seeds at epochs that all of them have.
        yield FieldError("/seeds", "must be one seed, as these trials end at epochs of their own")
    for index, seed in enumerate(request.confirmation.seeds):
        if seed in request.seeds:
            wrong = f"is a seed of the search ({seed}); a fresh one is needed"
            yield FieldError(f"/confirmation/seeds/{index}", wrong)


def _ends_by_itself(request: StudyRequest) -> bool:
    """Whether trials of one configuration may end at different epochs."""
    if isinstance(request.spec, IcaSpec):
        return True
    stopping = getattr(request.spec.trainer, "early_stopping", None)
    return stopping is not None or any(
        pointer.startswith("/trainer/early_stopping") for pointer in request.space
    )
