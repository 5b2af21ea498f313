"""What Ray Tune is given to try, and how much at one time.

A configuration is stored before Tune has it; what it pauses or ends makes room for another one.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from service.cluster.desk import FAILED
from service.cluster.tune_proxy import CONFIGURATION
from service.cluster.tune_search import decoded
from service.studies.channel import Said, Suggested
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
