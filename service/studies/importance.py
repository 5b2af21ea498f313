"""How much of a metric's variation each tuned parameter explains, by Optuna's evaluators.

``ped_anova`` (Watanabe, Bansal and Hutter, 2023) asks what tells the best trials from the others,
``fanova`` (Hutter, Hoos and Leyton-Brown, 2014) and ``mdi`` fit random forests. A parameter that
exists on a condition is compared among the trials that have it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, assert_never

from service.errors import FieldError, InvalidQuery, NoAnswerYet
from service.studies.curves import known_metric, mode_of
from service.studies.space import AnyDimension, Choice, Grid, LogUniform, Uniform, same
from service.studies.standings import Outcome, Standings
from workers.memory import import_lasting

# Optuna is imported where it is used: it takes a while, and memory, that no other answer needs.
if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.importance import BaseImportanceEvaluator

Evaluator = Literal["ped_anova", "fanova", "mdi"]
TRIALS_MIN = 8  # of fewer, an importance is noise
_TREES, _FOREST_TRIALS = 16, 400  # so that a forest takes a second, not ten


@dataclass(frozen=True, slots=True)
class Share:
    """The importance of a parameter among ``trials`` that have it: a share of 1 among all that
    these have. None where they are too few."""

    pointer: str
    importance: float | None
    trials: int


@dataclass(frozen=True, slots=True)
class Importance:
    """The parameters of a study, the most important first."""

    metric: str
    evaluator: Evaluator
    trials: int
    shares: tuple[Share, ...]


def importance(standings: Standings, metric: str | None, evaluator: Evaluator) -> Importance:
    """The importances for a metric, the objective where it is None.

    Of trials that ran to their end. Raises InvalidQuery for an unknown metric, NoAnswerYet for too
    few trials.
    """
    request = standings.study.request
    name = known_metric(standings, metric)
    mode = mode_of(request, name)
    if mode is None:
        problem = "is neither good nor bad by itself; name another metric"
        raise InvalidQuery(f"/query/metric {problem}.", (FieldError("/query/metric", problem),))
    usable = [one for one in standings.outcomes if one.is_whole and math.isfinite(one.value(name))]
    if len(usable) < TRIALS_MIN:
        raise NoAnswerYet(
            f"importances need {TRIALS_MIN} trials that ran to their end with {name}; there are "
            f"{len(usable)} of {len(standings.outcomes)}"
        )
    space = request.space
    shares = [_share(space, pointer, usable, name, mode, evaluator) for pointer in space]
    ordered = sorted(shares, key=lambda share: (share.importance is None, -(share.importance or 0)))
    return Importance(name, evaluator, len(usable), tuple(ordered))


def _share(
    space: Mapping[str, AnyDimension],
    pointer: str,
    usable: Sequence[Outcome],
    metric: str,
    mode: str,
    evaluator: Evaluator,
) -> Share:
    having = [one for one in usable if pointer in one.trial.values]
    values = [one.trial.values[pointer] for one in having]
    if len(having) < TRIALS_MIN:
        return Share(pointer, None, len(having))
    results = {one.value(metric) for one in having}
    if len(results) == 1 or all(same(values[0], value) for value in values):
        return Share(pointer, 0.0, len(having))
    beside = [
        other
        for other in space
        if all(other in one.trial.values for one in having)
        and any(not same(one.trial.values[other], having[0].trial.values[other]) for one in having)
    ]
    found = _evaluated(space, beside, having, metric, mode, evaluator)
    return Share(pointer, found[pointer], len(having))


def _evaluated(
    space: Mapping[str, AnyDimension],
    pointers: Sequence[str],
    having: Sequence[Outcome],
    metric: str,
    mode: str,
    evaluator: Evaluator,
) -> dict[str, float]:
    import_lasting("optuna.importance", "sklearn.ensemble")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize" if mode == "min" else "maximize")
    thinned = having
    if evaluator != "ped_anova" and len(having) > _FOREST_TRIALS:
        step = len(having) / _FOREST_TRIALS
        thinned = [having[int(place * step)] for place in range(_FOREST_TRIALS)]
    names = {pointer: f"p{index}" for index, pointer in enumerate(pointers)}
    distributions = {names[pointer]: _distribution(space[pointer]) for pointer in pointers}
    study.add_trials(
        [
            optuna.trial.create_trial(
                value=one.value(metric),
                params={
                    names[pointer]: _number(space[pointer], one.trial.values[pointer])
                    for pointer in pointers
                },
                distributions=distributions,
            )
            for one in thinned
        ]
    )
    shares = optuna.importance.get_param_importances(study, evaluator=_evaluator(evaluator))
    return {pointer: float(shares[name]) for pointer, name in names.items()}


def _evaluator(evaluator: Evaluator) -> "BaseImportanceEvaluator":
    from optuna.importance import (
        FanovaImportanceEvaluator,
        MeanDecreaseImpurityImportanceEvaluator,
        PedAnovaImportanceEvaluator,
    )

    match evaluator:
        case "ped_anova":
            return PedAnovaImportanceEvaluator()
        case "fanova":
            return FanovaImportanceEvaluator(n_trees=_TREES, seed=0)
        case "mdi":
            return MeanDecreaseImpurityImportanceEvaluator(n_trees=_TREES, seed=0)
        case _:
            assert_never(evaluator)


def _distribution(dimension: AnyDimension) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    match dimension:
        case Choice():
            return CategoricalDistribution(tuple(range(len(dimension.choice))))
        case Grid():
            return FloatDistribution(min(dimension.grid), max(dimension.grid))
        case Uniform(uniform=(low, high)):
            return FloatDistribution(low, high)
        case LogUniform(loguniform=(low, high)):
            return FloatDistribution(low, high, log=True)
        case _:
            assert_never(dimension)


def _number(dimension: AnyDimension, value: Any) -> int | float:
    if isinstance(dimension, Choice):
        return next(k for k, option in enumerate(dimension.options()) if same(option, value))
    return float(value)
