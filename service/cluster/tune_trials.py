"""What Ray Tune asks of a scheduler and a callback, with the ledger between.

A result is stored before the real scheduler is told of it, and the service hears of every pause and
end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from service.cluster.desk import FAILED
from service.cluster.tune_proxy import CONFIGURATION
from service.cluster.tune_scheduling import EPOCH, replay, stand_in
from service.cluster.tune_suggesting import LedgerSearch, Line, Places
from service.studies.channel import Continued, Over, Paused, Reported
from service.studies.ledger import TrialResult
from service.studies.replaying import Known


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a scheduler's memory leaves the configurations that go on."""

    paused: frozenset[int]
    stopped: frozenset[int]


def standing(
    scheduler: TrialScheduler, known: Sequence[Known], told: Sequence[TrialResult]
) -> Standing:
    """What a scheduler says of the configurations that have not ended, when it is told the past.

    One that it stopped, and whose driver died before that was carried out, is to end now.
    """
    trials = {one.number: stand_in(str(one.number), one.values) for one in known}
    ended = [one.number for one in known if one.standing != "unfinished"]
    decisions = {
        result.trial: decision
        for result, (_, decision) in zip(told, replay(scheduler, trials, told, ended), strict=True)
    }
    open_ones = [one.number for one in known if one.standing == "unfinished"]
    stopped = {
        number
        for number in open_ones
        if trials[number].is_finished() or decisions.get(number) == TrialScheduler.STOP
    }
    paused = {number for number in open_ones if trials[number].status == Trial.PAUSED}
    return Standing(frozenset(paused - stopped), frozenset(stopped))


class LedgerScheduler(TrialScheduler):  # type: ignore[misc]  # ray's modules are not followed
    """Has each result stored before the real scheduler is told of it.

    Once the configurations that go on are there, the real one is told the past.
    """

    _supports_buffered_results = False

    def __init__(
        self,
        scheduler: TrialScheduler,
        known: Sequence[Known],
        told: Sequence[TrialResult],
        places: Places,
        line: Line,
    ) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._metric = scheduler.metric
        self._known = {one.number: one for one in known}
        self._told = told
        self._paused = frozenset(places.paused)
        self._places = places
        self._line = line
        self._waiting = {one.number for one in known if one.goes_on}
        self._again: dict[int, Trial] = {}
        if not self._waiting:
            self._replay()

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """The scheduler knows its metric."""
        return True

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """A new trial; those of the past are told with it."""
        number: int = trial.config[CONFIGURATION]
        if number in self._waiting:
            self._waiting.discard(number)
            self._again[number] = trial
        else:
            self._scheduler.on_trial_add(tune_controller, trial)
        if number in self._paused:
            trial.set_status(Trial.PAUSED)  # Tune files a new trial by the status that it has
        elif self._places.all_at_once:
            trial.set_status(Trial.PAUSED)
            if self._places.in_line:
                self._places.waiting.append(trial)
        if number in self._again and not self._waiting:
            self._replay()

    def _replay(self) -> None:
        statuses = {number: trial.status for number, trial in self._again.items()}
        trials = {
            number: self._again.get(number) or stand_in(str(number), one.values)
            for number, one in self._known.items()
            if one.goes_on or one.standing != "unfinished"
        }
        ended = [number for number in trials if number not in self._again]
        for _ in replay(self._scheduler, trials, self._told, ended):
            pass
        for number, trial in self._again.items():  # Tune has filed them so
            trial.set_status(statuses[number])

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Have it stored, then decide."""
        number: int = trial.config[CONFIGURATION]
        self._line.ask(Reported(configuration=number, epoch=result[EPOCH]))
        decision: str = self._scheduler.on_trial_result(tune_controller, trial, result)
        if decision == TrialScheduler.PAUSE:
            self._places.pause(number)
            self._line.say(Paused(configuration=number))
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """It has ended by itself: well, or badly."""
        if result.get(FAILED):
            self._scheduler.on_trial_error(tune_controller, trial)
        else:
            self._scheduler.on_trial_complete(tune_controller, trial, result)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Its proxy died."""
        self._scheduler.on_trial_error(tune_controller, trial)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """It was stopped while it did not run."""
        self._scheduler.on_trial_remove(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Where trials come one by one, the newest that waits for a proxy, so that it has the one
        that has become free, if any: an older one's is being started, and Tune would end it.

        Else the real one's choice, or the first that waits for a place.
        """
        if not self._places.all_at_once:
            trials = reversed(tune_controller.get_trials())
            newest = next((each for each in trials if each.status == Trial.PENDING), None)
            if newest is not None:
                return newest
        found: Trial | None = self._scheduler.choose_trial_to_run(tune_controller)
        if found is None and self._places.waiting and not self._places.is_full:
            found = self._places.waiting.popleft()
            self._places.take(found.config[CONFIGURATION])
        return found

    def debug_string(self) -> str:
        """The real one's."""
        text: str = self._scheduler.debug_string()
        return text

    def save(self, checkpoint_path: str) -> None:
        """The ledger has what a new one is told."""

    def restore(self, checkpoint_path: str) -> None:
        """There is nothing to restore."""

    def __getstate__(self) -> dict[str, Any]:
        """Tune writes its own state down, which nobody reads."""
        return {}


class Turns(Callback):  # type: ignore[misc]  # ray's modules are not followed
    """Tells the service when a configuration goes on after a pause, and when it is over.

    ``end`` ends this process, with the reason where that is no end of the search: Tune itself would
    wait for its actors one by one, for seconds.
    """

    def __init__(
        self, search: LedgerSearch, places: Places, line: Line, end: Callable[[str | None], None]
    ) -> None:
        self._search = search
        self._end = end
        self._places = places
        self._line = line

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """End with the last trial."""
        if self._search.is_over and all(trial.is_finished() for trial in trials):
            self._end(None)

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """It has a proxy."""
        number = trial.config[CONFIGURATION]
        if self._places.take(number):
            self._line.say(Continued(configuration=number))

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """It was stopped, or has ended."""
        number = trial.config[CONFIGURATION]
        self._places.leave(number)
        self._line.say(Over(configuration=number))

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """A trial of Tune fails with its proxy alone: trials of the study end as results."""
        self._end(f"the proxy of configuration {trial.config[CONFIGURATION]} has died")

    def __getstate__(self) -> dict[str, Any]:
        """Tune writes its own state down, which nobody reads."""
        return {}
