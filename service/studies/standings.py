"""What the trials of a study came to: one reading of the ledger for all answers.

A trial is *whole* when it ran to its own end; one that a scheduler stopped saw fewer epochs, and
its last result does not compare. A configuration's value is the mean over its seeds, and none
where a seed is missing.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from service.jobs import BY_STUDY, FINAL_STATES, JobState
from service.jobstore import JobStore
from service.jobstore.studies import TrialFilter
from service.studies.ledger import Phase, Study, StudyReason, Trial, TrialResult
from service.studies.objective import objectives

_KEPT = 8  # studies whose trials are kept at hand


@dataclass(frozen=True, slots=True)
class Outcome:
    """A trial, after how many epochs it has reported last, and what.

    ``is_whole`` says that it came to its own end, and reported that.
    """

    trial: Trial
    epoch: int | None
    metrics: Mapping[str, float]
    is_whole: bool

    def value(self, metric: str) -> float:
        """NaN where it has none."""
        return self.metrics.get(metric, math.nan)


@dataclass(frozen=True)
class Standings:
    """A study and the outcomes of its trials in order; ``stamp`` changes with any of it.

    ``last`` is what each trial has reported last.
    """

    study: Study
    outcomes: tuple[Outcome, ...]
    stamp: tuple[int, ...]
    last: Mapping[int, TrialResult]

    @cached_property
    def values(self) -> Mapping[int, Mapping[str, Any]]:
        """The tuned values of each configuration."""
        return {outcome.trial.configuration: outcome.trial.values for outcome in self.outcomes}

    def of(self, phase: Phase) -> Mapping[int, Sequence[Outcome]]:
        """The outcomes of a phase by configuration."""
        found: dict[int, list[Outcome]] = {}
        for outcome in self.outcomes:
            if outcome.trial.phase is phase:
                found.setdefault(outcome.trial.configuration, []).append(outcome)
        return found

    def searched(self, metric: str) -> dict[int, float]:
        """The value of each configuration of the search at full budget, NaN where it has none."""
        seeds = len(self.study.request.seeds)
        return {
            number: _mean(outcomes, metric, seeds, lambda one: one.is_whole)
            for number, outcomes in self.of(Phase.SEARCH).items()
        }

    def reached(self, metric: str) -> dict[int, float]:
        """As :meth:`searched`, of configurations that have ended, however early."""
        seeds = len(self.study.request.seeds)
        return {
            number: _mean(
                outcomes, metric, seeds, lambda one: one.trial.state is JobState.SUCCEEDED
            )
            for number, outcomes in self.of(Phase.SEARCH).items()
        }

    def fresh(self, metric: str) -> dict[int, dict[int, float]]:
        """The values on fresh seeds, {configuration: {seed: value}}; NaN for what has failed, is
        under way, or is not there yet."""
        wanted = self.study.request.confirmation.seeds
        found = {}
        for number, outcomes in self.of(Phase.CONFIRMATION).items():
            by_seed = {one.trial.seed: one for one in outcomes}
            found[number] = {
                seed: by_seed[seed].value(metric)
                if seed in by_seed and by_seed[seed].is_whole
                else math.nan
                for seed in (*wanted, *(s for s in by_seed if s not in wanted))
            }
        return found

    @cached_property
    def is_confirming(self) -> bool:
        """Whether trials on fresh seeds are still under way, or to come. A study that was extended
        and searches again has those that confirmed it before."""
        if self.study.state in FINAL_STATES:
            return False
        confirmation = self.study.request.confirmation
        found = self.of(Phase.CONFIRMATION)
        values = self.searched(self.study.request.objective.metric)
        usable = sum(math.isfinite(value) for value in values.values())
        has_searched = (
            self.study.reason is StudyReason.CONFIRMING
            or len(self.of(Phase.SEARCH)) >= self.study.request.budget.trials
        )
        is_short = has_searched and len(found) < min(confirmation.top, usable)
        return is_short or any(
            len(outcomes) < len(confirmation.seeds)
            or any(one.trial.state not in FINAL_STATES for one in outcomes)
            for outcomes in found.values()
        )

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """The names of all metrics that trials have reported."""
        return tuple(dict.fromkeys(name for one in self.outcomes for name in one.metrics))


def _is_whole(trial: Trial, last: TrialResult | None, until: float) -> bool:
    """A trial that stops itself early comes to its own end, one that its study stops does not.

    One that its study has stopped too late is none either: it had come to its end, while its
    scheduler had decided by an earlier result.
    """
    came = trial.state is JobState.SUCCEEDED and trial.reason not in BY_STUDY
    return came and last is not None and last.epoch >= int(until)


def _mean(
    outcomes: Sequence[Outcome], metric: str, seeds: int, counts: Callable[[Outcome], bool]
) -> float:
    values = [one.value(metric) for one in outcomes if counts(one)]
    return math.fsum(values) / len(values) if len(values) >= seeds else math.nan


class StandingsCache:
    """Reads standings; what has not changed since is not read again."""

    def __init__(self, jobs: JobStore) -> None:
        self._jobs = jobs
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Standings] = OrderedDict()

    def get(self, study_id: str) -> Standings:
        """The standings of a study; raises StudyNotFound."""
        # The stamp first: what changes in between is read again, and never kept as what it was.
        stamp = self._jobs.studies.stamp(study_id)
        study = self._jobs.ledger.get(study_id)
        with self._lock:
            kept = self._kept.get(study_id)
            if kept is not None:
                self._kept.move_to_end(study_id)
        if kept is not None and kept.stamp == stamp:
            return kept
        # A retry takes trials up that had ended, and is another version of the study.
        if kept is not None and kept.study.version == study.version:
            found = self._brought_up(kept, study, stamp)
        else:
            trials = self._jobs.studies.trials(study_id, TrialFilter(), 0, None)
            last = self._last(study_id, kept)
            outcomes = outcomes_of(self._jobs, study, trials, last, None)
            found = Standings(study, outcomes, stamp, last)
        with self._lock:
            self._kept[study_id] = found
            self._kept.move_to_end(study_id)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found

    def _brought_up(self, kept: Standings, study: Study, stamp: tuple[int, ...]) -> Standings:
        """With what is new of trials that had not ended, and of results: others do not change."""
        studies = self._jobs.studies
        outcomes = {one.trial.number: one for one in kept.outcomes}
        still = [n for n, one in outcomes.items() if one.trial.state not in FINAL_STATES]
        trials = {trial.number: trial for trial in studies.trials_numbered(study.id, still)}
        newest = max(outcomes, default=0)
        for trial in studies.trials(study.id, TrialFilter(), newest, None):
            trials[trial.number] = trial
        last = self._last(study.id, kept)
        for number, result in last.items():
            if result is not kept.last.get(number) and number in outcomes:
                trials.setdefault(number, outcomes[number].trial)
        changed = outcomes_of(self._jobs, study, list(trials.values()), last, list(trials))
        outcomes.update((one.trial.number, one) for one in changed)
        in_order = tuple(outcomes[number] for number in sorted(outcomes))
        return Standings(study, in_order, stamp, last)

    def _last(self, study_id: str, kept: Standings | None) -> Mapping[int, TrialResult]:
        """The last results: what is new of them, as a result that is stored never changes."""
        if kept is None:
            return self._jobs.studies.last_results(study_id)
        seen = max((result.seq for result in kept.last.values()), default=0)
        last = dict(kept.last)
        for result in self._jobs.ledger.results(study_id, after=seen):
            if result.trial not in last or last[result.trial].epoch <= result.epoch:
                last[result.trial] = result
        return last


def outcomes_of(
    jobs: JobStore,
    study: Study,
    trials: Sequence[Trial],
    last: Mapping[int, TrialResult],
    only: Sequence[int] | None,
) -> tuple[Outcome, ...]:
    """Trials beside their last results; ``only`` are the numbers to ask about, None all.

    A metric may be reported more seldom than others: where the last result lacks an objective,
    each metric's own last value counts.
    """
    until = jobs.studies.measured_until(study.id, study.request.objective.metric, only)
    names = [objective.metric for _, objective in objectives(study.request)]
    found = {
        trial.number: Outcome(
            trial,
            last[trial.number].epoch if trial.number in last else None,
            last[trial.number].metrics if trial.number in last else {},
            _is_whole(trial, last.get(trial.number), until.get(trial.number, 0.0)),
        )
        for trial in trials
    }
    lacking = [
        number
        for number, one in found.items()
        if one.epoch is not None and any(name not in one.metrics for name in names)
    ]
    merged: dict[int, dict[str, float]] = {}
    for result in jobs.studies.results_of(study.id, lacking):
        merged.setdefault(result.trial, {}).update(result.metrics)
    for number, metrics in merged.items():
        found[number] = replace(found[number], metrics=metrics)
    return tuple(found.values())
