"""What ranks a study: which metric is meant, whether it may rank, and what to be wary of.

A metric may be named without its features where one kind of them is measured: ``kid`` is
``kid_pca`` then. What an objective needs to be measured is filled in.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from service.errors import FieldError
from service.studies.configuring import spec_of
from service.studies.guard import (
    Family,
    family_of,
    features_of,
    metrics_of,
    valid_metrics,
    verdict,
    verdict_on,
)
from service.studies.pointers import NoSuchPlace, escaped, keys_of
from service.studies.population import NAMED_MAX, named_epochs
from service.studies.request import (
    NoScheduler,
    Objective,
    Pbt,
    Scheduler,
    StudyRequest,
)
from service.studies.space import AnyDimension, Choice, same
from workers.kinds import AnySpec, epochs
from workers.spec import Quality, TrainSpec

_FIRST, _SECOND = "/objective", "/second_objective"
_EPOCHS = "/trainer/epochs"
_ABSENT = object()
_SCORES = ("inception_score", "classifier")


# --- which metric is meant ------------------------------------------------------------------------


def resolved(request: StudyRequest) -> StudyRequest:
    """The request with the full names of its metrics, and with the quality that they need.

    Quality is measured with every checkpoint where a scheduler wants results before the end, and a
    population has one at each of its rungs. What has no clear meaning stays as it is.
    """
    spec = _with_rungs(_with_quality(request), request.scheduler)
    changes: dict[str, Any] = {"spec": spec}
    for field, objective in (
        ("objective", request.objective),
        ("second_objective", request.second_objective),
    ):
        if objective is not None:
            meant = _meant(objective.metric, metrics_of(spec))
            if len(meant) == 1:
                changes[field] = objective.model_copy(update={"metric": meant[0]})
    return request.model_copy(update=changes)


def objectives(request: StudyRequest) -> Iterator[tuple[str, Objective]]:
    """The objectives, each with its pointer."""
    yield _FIRST, request.objective
    if request.second_objective is not None:
        yield _SECOND, request.second_objective


def _with_quality(request: StudyRequest) -> AnySpec:
    spec = request.spec
    if not isinstance(spec, TrainSpec):
        return spec
    quality = spec.trainer.quality
    if quality is None:
        named = [features_of(objective.metric) for _, objective in objectives(request)]
        needed = [features for features in named if features is not None]
        if not needed:
            return spec
        quality = Quality(features=tuple(dict.fromkeys(name for one in needed for name in one)))
    if not isinstance(request.scheduler, NoScheduler):
        quality = quality.model_copy(update={"at": "checkpoints"})
    trainer = spec.trainer.model_copy(update={"quality": quality})
    return spec.model_copy(update={"trainer": trainer})


def _with_rungs(spec: AnySpec, scheduler: Scheduler) -> AnySpec:
    if not isinstance(scheduler, Pbt) or not isinstance(spec, TrainSpec):
        return spec
    named = named_epochs(spec, scheduler.interval_epochs)
    if len(named) > NAMED_MAX:  # which is refused, with its own pointer
        return spec
    return spec.model_copy(update={"checkpoint_at_epochs": named})


def _meant(metric: str, known: Sequence[str]) -> tuple[str, ...]:
    """The metrics that a name may mean: itself, or that measure in each kind of features."""
    if metric in known:
        return (metric,)
    return tuple(
        name
        for name in known
        if name.startswith(f"{metric}_") and family_of(name) is Family.QUALITY
    )


# --- what is wrong with it ------------------------------------------------------------------------


def unknown(request: StudyRequest) -> Iterator[FieldError]:
    """Objectives of a resolved request that its trials would not have."""
    for at, objective in objectives(request):
        known = metrics_of(request.spec)
        if objective.metric in known or _is_diagnostic(objective.metric):
            continue
        yield FieldError(f"{at}/metric", _why_unknown(objective.metric, known))
    second = request.second_objective
    if second is not None and second.metric == request.objective.metric:
        yield FieldError(f"{_SECOND}/metric", "is the objective itself; name another one")


def _is_diagnostic(metric: str) -> bool:
    try:
        return family_of(metric) is Family.DIAGNOSTIC
    except KeyError:
        return False


def _why_unknown(metric: str, known: Sequence[str]) -> str:
    meant = _meant(metric, known)
    if meant:
        return f"is measured in several kinds of features; name one: {', '.join(meant)}"
    features = features_of(metric)
    if features and any(family_of(name) is Family.QUALITY for name in known):
        return f"needs {features[0]} in /spec/trainer/quality/features"
    if any(word in metric.lower() for word in _SCORES):
        return (
            "is measured by no trial: a classifier's score sees samples alone, and never the data; "
            f"they have: {', '.join(known)}"
        )
    close = difflib.get_close_matches(metric, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"they have: {', '.join(known)}"
    return f"is no metric of such trials that can rank them; {hint}"


# --- the guard ------------------------------------------------------------------------------------


def tuned(request: StudyRequest) -> tuple[str, ...]:
    """The pointers at which trials differ: of whole objects, only the parts that do."""
    base = request.spec.model_dump(mode="json")
    found: list[str] = []
    for pointer, dimension in request.space.items():
        found += _differing(pointer, dimension, base)
    return tuple(dict.fromkeys(found))


def _differing(pointer: str, dimension: AnyDimension, base: Any) -> Iterator[str]:
    if not isinstance(dimension, Choice):
        yield pointer
        return
    values = list(dimension.options())
    if dimension.when:  # elsewhere the base's value stays
        values.append(_value_at(base, pointer))
    first, *others = values
    for other in others:
        yield from _differences(pointer, first, other)


def _value_at(document: Any, pointer: str) -> Any:
    for key in keys_of(pointer):
        match document:
            case dict() if key in document:
                document = document[key]
            case list() if key.isdigit() and int(key) < len(document):
                document = document[int(key)]
            case _:
                return _ABSENT
    return document


def _differences(pointer: str, one: Any, other: Any) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            parts = one.get(key, _ABSENT), other.get(key, _ABSENT)
            yield from _differences(f"{pointer}/{escaped(key)}", *parts)
    elif one is _ABSENT or other is _ABSENT or not same(one, other):
        yield pointer


def valid(request: StudyRequest) -> tuple[str, ...]:
    """The metrics of a resolved request that depend on nothing that it tunes."""
    return valid_metrics(tuned(request), metrics_of(_with_default_quality(request.spec)))


def _with_default_quality(spec: AnySpec) -> AnySpec:
    """The spec as it would be with the quality that an objective may ask for."""
    if not isinstance(spec, TrainSpec) or spec.trainer.quality is not None:
        return spec
    trainer = spec.trainer.model_copy(update={"quality": Quality()})
    return spec.model_copy(update={"trainer": trainer})


def objections(request: StudyRequest) -> Iterator[FieldError]:
    """Objectives of a resolved request that would choose a field, and no model."""
    pointers = tuned(request)
    for at, objective in objectives(request):
        metric = objective.metric
        allowed = ("biased", "fine") if at == _FIRST else ("beside", "biased", "fine")
        if verdict_on(metric, pointers) in allowed:
            continue
        yield FieldError(f"{at}/metric", _objection(metric, pointers))


def _objection(metric: str, pointers: Sequence[str]) -> str:
    match family_of(metric):
        case Family.DIAGNOSTIC:
            return "ranks no models: it is neither good nor bad by itself, or echoes the spec"
        case Family.REFERENCE:
            return (
                "never decides alone: it measures the encoder too; make it the second objective, "
                "beside a measure of the samples"
            )
        case _:
            guilty = [at for at in pointers if verdict(metric, at) == "depends"]
            return f"depends on what the study tunes ({', '.join(guilty)}), and would choose that"


# --- how long trials are -------------------------------------------------------------------------


def most_epochs(request: StudyRequest) -> int:
    """The epochs of the longest trial."""
    most = epochs(request.spec)
    for pointer, dimension in request.space.items():
        if pointer not in (_EPOCHS, "/trainer"):
            continue
        values = dimension.options() or (dimension.at(0.0), dimension.at(1.0))
        for value in values:
            most = max(most, _epochs_with(request.spec, {pointer: value}) or 0)
    return most


def _epochs_with(spec: AnySpec, configuration: Mapping[str, object]) -> int | None:
    """None where the values do not fit by themselves, which the space's own check judges."""
    try:
        return epochs(spec_of(spec, configuration))
    except (NoSuchPlace, ValidationError):
        return None
