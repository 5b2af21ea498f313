"""From a ledger to what a new driver tells its searcher and its scheduler."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

from service.jobs import JobState
from service.studies.ledger import Phase, Trial, TrialResult

Standing = Literal["finished", "failed", "unfinished"]


@dataclass(frozen=True, slots=True)
class Known:
    """A configuration of the search and what is known of it.

    ``history`` has its metrics after so many epochs, means over its seeds, by rising epochs.
    """

    number: int
    values: Mapping[str, Any]
    standing: Standing
    history: tuple[tuple[int, Mapping[str, float]], ...]

    @property
    def goes_on(self) -> bool:
        """Whether it has not ended, and a scheduler was told of it."""
        return self.standing == "unfinished" and bool(self.history)

    def last(self, metrics: Sequence[str]) -> tuple[float, ...] | None:
        """The last result in these metrics; None where there is none that is a number."""
        found = [
            tuple(values[name] for name in metrics)
            for _, values in self.history
            if all(math.isfinite(values.get(name, math.nan)) for name in metrics)
        ]
        return found[-1] if found else None


def known(trials: Sequence[Trial], results: Sequence[TrialResult], seeds: int) -> tuple[Known, ...]:
    """The configurations of a search, by number.

    One has failed with the first of its trials that has, and is finished when those of all
    ``seeds`` have ended: a driver may have died before it had stored them all.
    """
    searched: dict[int, list[Trial]] = {}
    for trial in trials:
        if trial.phase is Phase.SEARCH:
            searched.setdefault(trial.configuration, []).append(trial)
    reported: dict[int, dict[int, Mapping[str, float]]] = {}
    for result in results:
        reported.setdefault(result.trial, {})[result.epoch] = result.metrics
    return tuple(
        Known(number, of[0].values, _standing(of, seeds), _history(of, reported))
        for number, of in sorted(searched.items())
    )


def _standing(trials: Sequence[Trial], seeds: int) -> Standing:
    states = {trial.state for trial in trials}
    if states & {JobState.FAILED, JobState.CANCELLED}:
        return "failed"
    is_whole = len(trials) >= seeds and states == {JobState.SUCCEEDED}
    return "finished" if is_whole else "unfinished"


def _history(
    trials: Sequence[Trial], reported: Mapping[int, Mapping[int, Mapping[str, float]]]
) -> tuple[tuple[int, Mapping[str, float]], ...]:
    """Means over the trials at the epochs that all of them have reported."""
    each = [reported.get(trial.number, {}) for trial in trials]
    epochs = sorted(set.intersection(*(set(one) for one in each)))
    return tuple((epoch, mean([one[epoch] for one in each])) for epoch in epochs)


def mean(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The means over trials of what all of them have."""
    names = [name for name in values[0] if all(name in one for one in values)]
    return {name: math.fsum(one[name] for one in values) / len(values) for name in names}


def numbers(told: Sequence[Known]) -> Iterator[int]:
    """The numbers of what a searcher suggests that was told so: the unfinished, first those that
    schedulers know, then new ones."""
    yield from (one.number for one in suggested_again(told))
    yield from count(len(told))


def suggested_again(told: Sequence[Known]) -> list[Known]:
    """The unfinished in the order in which they are suggested again."""
    unfinished = [one for one in told if one.standing == "unfinished"]
    return sorted(unfinished, key=lambda one: not one.goes_on)


def as_told(trials: Sequence[Trial], results: Sequence[TrialResult]) -> tuple[TrialResult, ...]:
    """The results that a scheduler was told of, in that order: means of a configuration.

    ``trial`` is the configuration's number, ``seq`` that of the result which made the mean whole.
    """
    of: dict[int, list[Trial]] = {}
    for trial in trials:
        if trial.phase is Phase.SEARCH:
            of.setdefault(trial.configuration, []).append(trial)
    owner = {trial.number: trial.configuration for group in of.values() for trial in group}
    reported: dict[tuple[int, int], dict[int, TrialResult]] = {}
    told = []
    for result in results:
        if result.trial not in owner:
            continue
        number = owner[result.trial]
        whole = reported.setdefault((number, result.epoch), {})
        whole[result.trial] = result
        if len(whole) == len(of[number]):
            metrics = mean([one.metrics for one in whole.values()])
            told.append(TrialResult(result.seq, number, result.epoch, metrics, result.at))
    return tuple(told)
