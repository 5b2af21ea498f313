"""What Ray Tune asks of a searcher, a scheduler and a callback, with the ledger between.

Each is a thin one around the real one: a configuration is stored before Tune has it, a result
before the scheduler is told of it, and the service hears of every pause and end.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from service.cluster.desk import FAILED
from service.cluster.tune_proxy import CONFIGURATION
from service.cluster.tune_scheduling import EPOCH, replay, stand_in
from service.cluster.tune_search import decoded
from service.studies.channel import Continued, Over, Paused, Reported, Said, Suggested
from service.studies.ledger import TrialResult
from service.studies.replaying import Known, numbers
from service.studies.request import StudyRequest


class Line(Protocol):
    """The way to the service."""

    def say(self, message: Said) -> None:
        """Tell it."""
        ...

    def ask(self, message: Said) -> None:
        """Tell it, and wait until that is stored."""
        ...


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


class Places:
    """The configurations that take a place of those tried at one time: those that do not pause.

    Where a scheduler wants all trials ``at_once``, they wait for a place, each with a status of
    Tune's for which it has no proxy: ``in_line`` here, unless the scheduler itself has the choice.
    """

    def __init__(
        self, most: int, paused: frozenset[int], *, all_at_once: bool, in_line: bool = True
    ) -> None:
        self._most = most
        self.all_at_once = all_at_once
        self.in_line = in_line
        self.waiting: deque[Trial] = deque()
        self._taken: set[int] = set()
        self.paused = set(paused)

    @property
    def is_full(self) -> bool:
        """Whether no new configuration is wanted now."""
        return len(self._taken) >= self._most

    def take(self, configuration: int) -> bool:
        """It is tried from now on; returns whether it has paused before."""
        was_paused = configuration in self.paused
        self.paused.discard(configuration)
        self._taken.add(configuration)
        return was_paused

    def pause(self, configuration: int) -> None:
        """It makes room."""
        self._taken.discard(configuration)
        self.paused.add(configuration)

    def leave(self, configuration: int) -> None:
        """It is over."""
        self._taken.discard(configuration)
        self.paused.discard(configuration)

    def replace(self, configuration: int, by: int) -> None:
        """It is over, and another one, which pauses, goes on instead."""
        self.leave(configuration)
        self.paused.add(by)


class LedgerSearch(Searcher):  # type: ignore[misc]  # ray's modules are not followed
    """Gives each suggestion its number, and has it stored before Tune sees it; ``left`` in all.

    ``ahead`` of them are stored before there is a place; none where the searcher is told of
    results, as it would choose them with less knowledge. The service begins them when a place of
    its own is free, which is before Tune has heard of it, or has a proxy; results wait at the desk.
    Tune itself has no more than there are places: it would ask for a proxy for each, and end it
    while it is being started to use one that has become free, again and again.
    """

    def __init__(
        self,
        searcher: Searcher,
        request: StudyRequest,
        known: Sequence[Known],
        places: Places,
        line: Line,
        left: int,
        ahead: int,
    ) -> None:
        super().__init__(metric=request.objective.metric, mode=request.objective.mode)
        self.searcher = searcher
        self._space = request.space
        self._numbers = numbers(known)
        self._again = sum(one.goes_on for one in known)
        self._places = places
        self._line = line
        self._last: dict[str, Mapping[str, Any]] = {}
        self._left = left
        self._most_ahead = ahead
        self._ahead: deque[dict[str, Any]] = deque()
        self._is_exhausted = False

    @property
    def is_over(self) -> bool:
        """Whether it suggests nothing more."""
        return not self._ahead and (self._is_exhausted or self._left == 0)

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: Mapping[str, Any], **spec: Any
    ) -> bool:
        """The searcher knows its study; what Tune adds is the same for all trials."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next configuration; None while there is no place. What the scheduler has known comes
        first, and at once, as it is told the past when all of it is there."""
        if not (self._again or self._places.all_at_once) and self._places.is_full:
            self._look_ahead(trial_id)
            return None
        found = self._ahead.popleft() if self._ahead else self._next(trial_id)
        if isinstance(found, dict):
            number = found[CONFIGURATION]
            if number not in self._places.paused and not self._places.all_at_once:
                self._places.take(number)
        return found

    def _next(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next configuration, stored, if the searcher has one."""
        if self._is_exhausted:
            return str(Searcher.FINISHED)
        found: dict[str, Any] | str | None = self.searcher.suggest(trial_id)
        if not isinstance(found, dict):
            self._is_exhausted = found == Searcher.FINISHED
            return found
        self._left -= 1
        self._again = max(self._again - 1, 0)
        number = next(self._numbers)
        self._line.ask(Suggested(configuration=number, values=decoded(self._space, found)))
        return {**found, CONFIGURATION: number}

    def _look_ahead(self, trial_id: str) -> None:
        """One more, as each is waited for and Tune asks at every step of its own."""
        if self._left > 0 and len(self._ahead) < self._most_ahead:
            found = self._next(trial_id)
            if isinstance(found, dict):
                self._ahead.append(found)

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Remember it: of a trial that is stopped in its pause, Tune does not repeat it."""
        self._last[trial_id] = result
        self.searcher.on_trial_result(trial_id, result)

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell how it ended; a failed trial's last result says nothing."""
        last = result or self._last.pop(trial_id, None)
        if error or (last is not None and last.get(FAILED)):
            self.searcher.on_trial_complete(trial_id, None, True)
        else:
            self.searcher.on_trial_complete(trial_id, last)

    def get_state(self) -> dict[str, Any]:
        """The ledger has it."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """Tune writes its own state down, which nobody reads."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """The ledger has it."""

    def save(self, checkpoint_path: str) -> None:
        """See :class:`service.cluster.tune_search.NumberedSearch`."""
        self.searcher.save(checkpoint_path)

    def restore(self, checkpoint_path: str) -> None:
        """There is nothing to restore."""


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
