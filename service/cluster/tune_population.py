"""Ray Tune's population-based training over configurations that never change.

For Tune a member of a population changes its configuration when it takes over another's checkpoint;
in the ledger it goes on as a new one. Which, is asked of the service before Tune goes on.

What Tune's scheduler decides by is drawn by the study's seed and the epoch, so a driver that is
told the past from the beginning, result by result, decides as the one before it, and what that had
stored is stored once. There is no other way: the scheduler cannot be saved, and takes a checkpoint
of Tune's for granted in every trial that others may take over.
"""

import hashlib
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler

from service.cluster.tune_proxy import CONFIGURATION
from service.cluster.tune_scheduling import EPOCH
from service.cluster.tune_search import decoded
from service.cluster.tune_suggesting import Line, Places
from service.studies.channel import Exchanged, Takeover
from service.studies.request import StudyRequest


class _Controller:
    """Tune's controller as the scheduler sees it: without a search, beside which it refuses to
    work, though ours suggests the first configurations and no more."""

    search_alg = None

    def __init__(self, controller: Any) -> None:
        self._controller = controller

    def __getattr__(self, name: str) -> Any:
        return getattr(self._controller, name)


class Population(TrialScheduler):  # type: ignore[misc]  # ray's modules are not followed
    """Lets nobody begin before all are there, and tells the service who takes over from whom."""

    def __init__(
        self,
        scheduler: PopulationBasedTraining,
        request: StudyRequest,
        last_epoch: int,
        places: Places,
        line: Line,
    ) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._metric = scheduler.metric
        self._worst = math.inf if request.objective.mode == "min" else -math.inf
        self._space = request.space
        self._seed = request.seeds[0]
        self._size = self._next = request.budget.trials
        self._last_epoch = last_epoch
        self._places = places
        self._line = line
        self._numbers: dict[str, int] = {}
        self._members: list[Trial] = []
        self._told: dict[str, dict[str, Any]] = {}

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """One more of the population."""
        self._members.append(trial)
        self._numbers[trial.trial_id] = trial.config[CONFIGURATION]
        self._scheduler.on_trial_add(_Controller(tune_controller), trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Pause at each rung, until all are there; at the last epoch nobody takes over any more."""
        if result[EPOCH] >= self._last_epoch:
            return str(TrialScheduler.CONTINUE)
        self._told[trial.trial_id] = result
        return self._tell(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The real one's choice of those who have not come to the next rung."""
        if len(self._members) < self._size or self._places.is_full:
            return None
        found: Trial | None = self._scheduler.choose_trial_to_run(tune_controller)
        if found is None and (waiting := self._all_wait()):
            # The one that they waited for has ended by itself, and so will never come.
            self._tell(tune_controller, waiting[0])
            found = self._scheduler.choose_trial_to_run(tune_controller)
        return found

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """It has come to its end."""
        self._scheduler.on_trial_complete(tune_controller, trial, result)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """It has failed, and leaves the population."""
        self._scheduler.on_trial_error(tune_controller, trial)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """It was stopped while it did not run."""
        self._scheduler.on_trial_remove(tune_controller, trial)

    def debug_string(self) -> str:
        """The real one's."""
        text: str = self._scheduler.debug_string()
        return text

    def save(self, checkpoint_path: str) -> None:
        """The ledger has what a new one is told."""

    def restore(self, checkpoint_path: str) -> None:
        """There is nothing to restore."""

    def _all_wait(self) -> list[Trial]:
        live = [trial for trial in self._members if not trial.is_finished()]
        is_still = all(
            trial.status == Trial.PAUSED and trial.trial_id in self._told for trial in live
        )
        return live if is_still else []

    def _tell(self, tune_controller: Any, trial: Trial) -> str:
        result = self._told[trial.trial_id]
        if math.isnan(result[self._metric]):  # which the real one would keep for ever
            result = {**result, self._metric: self._worst}
        with _drawn_by(f"{self._seed}/{result[EPOCH]}"):
            decision: str = self._scheduler.on_trial_result(
                _Controller(tune_controller), trial, result
            )
        self._say_exchanges(result[EPOCH])
        return decision

    def _say_exchanges(self, epoch: int) -> None:
        """Those that take over, have the other's whole configuration by now, but for the scale."""
        found = []
        for trial in self._members:
            own, of = self._numbers[trial.trial_id], trial.config[CONFIGURATION]
            if own == of:
                continue
            number, self._next = self._next, self._next + 1
            values = decoded(self._space, trial.config)
            found.append(Takeover(configuration=number, instead_of=own, of=of, values=values))
            trial.set_config({**trial.config, CONFIGURATION: number})
            self._numbers[trial.trial_id] = number
        if not found:
            return
        self._line.ask(Exchanged(epoch=epoch, takeovers=tuple(found)))
        for one in found:
            self._places.replace(one.instead_of, one.configuration)


@contextmanager
def _drawn_by(seed: str) -> Iterator[None]:
    """In the block the process's generators, which Tune draws from, are a function of the seed."""
    ours, numpys = random.getstate(), np.random.get_state()
    digest = hashlib.sha256(seed.encode()).digest()
    random.seed(digest)
    np.random.seed(int.from_bytes(digest[:4], "big"))
    try:
        yield
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)
