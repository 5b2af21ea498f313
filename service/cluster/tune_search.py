"""A study's search as a searcher of Ray Tune that knows what a ledger knows.

A space has conditions and values of any JSON type, and its pointers have slashes, which Tune takes
apart. So a configuration crosses as {"p0": …, "p1": …}, a number for each dimension that exists:
the value of a range, or the place of a value among those that a dimension can have.

Finished configurations are in Optuna's study before its sampler is asked, failed ones as failed;
unfinished ones are suggested first, in their order. (``evaluated_rewards`` of OptunaSearch says
the same, but of spaces without conditions alone, and for one objective.)
"""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, assert_never

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from service.studies.configuring import numbered
from service.studies.replaying import Known, numbers, suggested_again
from service.studies.request import (
    CmaEsSearch,
    GpSearch,
    GridSearch,
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
    in_order,
    is_active,
    same,
)

Space = Mapping[str, AnyDimension]
_STUDY = "study"


def searcher(request: StudyRequest, told: Sequence[Known]) -> Searcher:
    """The searcher of a study, told of what is known; of a resolved request.

    What it suggests has the numbers that ``replaying.numbers`` gives.
    """
    match request.search:
        case RandomSearch() | GridSearch():
            return NumberedSearch(request, told)
        case TpeSearch() | GpSearch() | CmaEsSearch():
            return _optuna_search(request, told)
        case _:
            assert_never(request.search)


class NumberedSearch(Searcher):  # type: ignore[misc]  # ray's modules are not followed
    """Suggests configurations that are a function of their number: random draws, and grids."""

    def __init__(self, request: StudyRequest, told: Sequence[Known]) -> None:
        super().__init__(metric=request.objective.metric, mode=request.objective.mode)
        self._request = request
        self._told = {one.number: one.values for one in told}
        self._numbers = numbers(told)

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """The next configuration, or that there is none."""
        number = next(self._numbers)
        space, search = self._request.space, self._request.search
        assert isinstance(search, RandomSearch | GridSearch)
        found = self._told.get(number) or numbered(space, search, self._request.seeds[0], number)
        return Searcher.FINISHED if found is None else encoded(space, found)

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Results change nothing."""

    def save(self, checkpoint_path: str) -> None:
        """The ledger has what is known; Tune wants a file."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """There is nothing to restore."""


# --- configurations as numbers --------------------------------------------------------------------


def encoded(space: Space, values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as Tune and Optuna see it."""
    return {
        f"p{index}": _to_number(space[pointer], values[pointer])
        for index, pointer in enumerate(space)
        if pointer in values
    }


def decoded(space: Space, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration that Tune or Optuna means."""
    return {
        pointer: _to_value(space[pointer], numbers[f"p{index}"])
        for index, pointer in enumerate(space)
        if f"p{index}" in numbers
    }


def distribution(dimension: AnyDimension) -> BaseDistribution:
    """The values of a dimension for Optuna: a range, an order of places, or places without one."""
    match dimension:
        case Choice():
            return CategoricalDistribution(tuple(range(len(dimension.choice))))
        case Grid():
            return IntDistribution(0, len(dimension.grid) - 1)
        case Uniform(uniform=(low, high)):
            steps = dimension.steps
            return FloatDistribution(low, high) if steps is None else IntDistribution(0, steps)
        case LogUniform(loguniform=(low, high)):
            return FloatDistribution(low, high, log=True)
        case _:
            assert_never(dimension)


def _to_number(dimension: AnyDimension, value: Any) -> int | float:
    match dimension:
        case Choice() | Grid():
            return next(k for k, option in enumerate(dimension.options()) if same(option, value))
        case Uniform(step=step, uniform=(low, _)) if step is not None:
            place: int = round((value - low) / step)
            return place
        case Uniform() | LogUniform():
            return float(value)
        case _:
            assert_never(dimension)


def _to_value(dimension: AnyDimension, number: float) -> Any:
    match dimension:
        case Choice() | Grid():
            return dimension.options()[int(number)]
        case Uniform() if dimension.steps is not None:
            return dimension.on_lattice(int(number))
        case Uniform():
            return number
        case LogUniform():
            return dimension.nearest(number)
        case _:
            assert_never(dimension)


# --- Optuna ---------------------------------------------------------------------------------------


class _ModelSearch(OptunaSearch):  # type: ignore[misc]  # ray's modules are not followed
    """Optuna's samplers; Ray takes the seconds in which one fits its model for those of a space."""

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next configuration."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Define-by-run function", UserWarning)
            found: dict[str, Any] | None = super().suggest(trial_id)
            return found


def _optuna_search(request: StudyRequest, told: Sequence[Known]) -> OptunaSearch:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    objectives = [o for o in (request.objective, request.second_objective) if o is not None]
    metrics = [objective.metric for objective in objectives]
    modes = [objective.mode for objective in objectives]
    storage, sampler = optuna.storages.InMemoryStorage(), _sampler(request, len(told))
    study = optuna.create_study(
        storage=storage,
        sampler=sampler,
        study_name=_STUDY,
        directions=[
            StudyDirection.MINIMIZE if mode == "min" else StudyDirection.MAXIMIZE for mode in modes
        ],
    )
    for one in told:
        last = one.last(metrics)
        if one.standing == "finished" and last and isinstance(request.search, CmaEsSearch):
            _repeat(study, request.space, one, last)
        elif one.standing != "unfinished":
            _add(study, request.space, one, last)
    for one in suggested_again(told):
        study.enqueue_trial(encoded(request.space, one.values))
    is_single = len(objectives) == 1
    return _ModelSearch(
        space=partial(_suggest, space=request.space),  # Tune pickles it
        metric=metrics[0] if is_single else metrics,
        mode=modes[0] if is_single else modes,
        sampler=sampler,
        storage=storage,
        study_name=_STUDY,
    )


def _add(study: optuna.Study, space: Space, one: Known, last: Sequence[float] | None) -> None:
    values = last if one.standing == "finished" else None
    study.add_trial(
        create_trial(
            state=TrialState.FAIL if values is None else TrialState.COMPLETE,
            values=values,
            params=encoded(space, one.values),
            distributions={
                f"p{index}": distribution(space[pointer])
                for index, pointer in enumerate(space)
                if pointer in one.values
            },
        )
    )


def _repeat(study: optuna.Study, space: Space, one: Known, last: Sequence[float]) -> None:
    """CMA-ES learns only of trials that it was asked for: this one, with the values it had."""
    study.enqueue_trial(encoded(space, one.values))
    trial = study.ask()
    _suggest(trial, space)
    study.tell(trial, list(last))


def _suggest(trial: Any, space: Space) -> None:
    """Ask for each dimension that exists beside those before it; the trial keeps the answers."""
    places = {pointer: f"p{index}" for index, pointer in enumerate(space)}
    configuration: dict[str, Any] = {}
    for pointer in in_order(space):
        dimension, name = space[pointer], places[pointer]
        if not is_active(dimension, configuration):
            continue
        match distribution(dimension):
            case FloatDistribution(low=low, high=high, log=log):
                number = trial.suggest_float(name, low, high, log=log)
            case IntDistribution(low=low, high=high):
                number = trial.suggest_int(name, low, high)
            case CategoricalDistribution(choices=choices):
                number = trial.suggest_categorical(name, choices)
            case other:
                raise TypeError(f"no suggestion from {other}")
        configuration[pointer] = _to_value(dimension, number)


def _sampler(request: StudyRequest, told: int) -> optuna.samplers.BaseSampler:
    """Seeded by the study's seed and by how much is known, so that no driver repeats draws."""
    seed = Random(f"{request.seeds[0]}/{told}").randrange(2**32)
    search = request.search
    match search:
        case TpeSearch():
            return optuna.samplers.TPESampler(
                n_startup_trials=search.startup_trials,
                constant_liar=request.concurrency > 1,
                seed=seed,
            )
        case GpSearch():
            return optuna.samplers.GPSampler(n_startup_trials=search.startup_trials, seed=seed)
        case CmaEsSearch():
            return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        case _:
            raise TypeError(f"{search.kind} is no search of Optuna")
