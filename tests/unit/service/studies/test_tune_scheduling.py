"""Schedulers of Ray Tune: what they are built of, and that a replay decides as the run did."""

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from service.cluster.tune_population import Population
from service.cluster.tune_proxy import CONFIGURATION
from service.cluster.tune_scheduling import replay, scheduler, stand_in
from service.cluster.tune_suggesting import Places
from service.cluster.tune_trials import LedgerScheduler
from service.studies.channel import Paused, Reported, Said
from service.studies.checking import require
from service.studies.ledger import TrialResult
from service.studies.request import StudyRequest
from tests.factories import tiny_spec

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EPOCHS = 27


def study(kind: dict[str, Any], **fields: Any) -> StudyRequest:
    return require(
        StudyRequest.model_validate(
            {
                "name": "which noise",
                "spec": tiny_spec(epochs=EPOCHS).model_dump(),
                "space": {"/trainer/spread/scale": {"loguniform": [0.05, 1.0]}},
                "objective": {"metric": "kid", "mode": "min"},
                "scheduler": kind,
                "budget": {"trials": 9},
                **fields,
            }
        )
    )


SCHEDULERS: list[dict[str, Any]] = [
    {"kind": "none"},
    {"kind": "asha", "grace_epochs": 3},
    {"kind": "median", "grace_epochs": 3},
    {"kind": "hyperband"},
]
PBT: dict[str, Any] = {"kind": "pbt", "interval_epochs": 9}
COSTS = (5.0, 3.0, 8.0, 1.0, 9.0, 2.0, 7.0, 4.0, 6.0)


class Live:
    """A run of nine trials, two epochs apart, as Tune's controller would drive it."""

    def __init__(self, request: StudyRequest) -> None:
        self.scheduler = scheduler(request, EPOCHS)
        self.trials = {n: stand_in(f"trial-{n}", {"p0": n}) for n in range(1, len(COSTS) + 1)}
        self.results: list[TrialResult] = []
        self.decisions: list[tuple[int, str]] = []
        self.epochs = dict.fromkeys(self.trials, 0)

    def get_trials(self) -> list[Trial]:
        return list(self.trials.values())

    def get_live_trials(self) -> list[Trial]:
        return [trial for trial in self.trials.values() if not trial.is_finished()]

    def stop_trial(self, trial: Trial) -> None:
        trial.set_status(Trial.TERMINATED)
        self.scheduler.on_trial_remove(self, trial)

    def run(self, steps: int) -> None:
        for trial in self.trials.values():
            self.scheduler.on_trial_add(self, trial)
            trial.set_status(Trial.RUNNING)
        while len(self.results) < steps:
            ready = [n for n, t in self.trials.items() if t.status == Trial.RUNNING]
            if not ready:
                paused = self.get_live_trials() and self.scheduler.choose_trial_to_run(self)
                if not paused:
                    return
                paused.set_status(Trial.RUNNING)
                continue
            for number in ready[: steps - len(self.results)]:
                if self.trials[number].status == Trial.RUNNING:
                    self._report(number)

    def at_their_end(self) -> int:
        """How many trials have run to their last epoch."""
        return sum(epoch == EPOCHS for epoch in self.epochs.values())

    def _report(self, number: int) -> None:
        trial = self.trials[number]
        self.epochs[number] += 1
        epoch = self.epochs[number]
        values = {"kid_pca": COSTS[number - 1] + 1 / epoch}
        result = TrialResult(len(self.results) + 1, number, epoch, values, NOW)
        self.results.append(result)
        told = {"epoch": epoch, **values}
        decision = self.scheduler.on_trial_result(self, trial, told)
        self.decisions.append((result.seq, decision))
        if decision == TrialScheduler.STOP or epoch == EPOCHS:
            self.scheduler.on_trial_complete(self, trial, told)
            trial.set_status(Trial.TERMINATED)
        elif decision == TrialScheduler.PAUSE:
            trial.set_status(Trial.PAUSED)


@pytest.mark.parametrize("kind", SCHEDULERS, ids=lambda kind: kind["kind"])
def test_a_replay_decides_as_the_run_did(kind: dict[str, Any]) -> None:
    request = study(kind)
    live = Live(request)
    live.run(180)
    assert len(live.results) > 20
    ended = [number for number, trial in live.trials.items() if trial.is_finished()]
    stopped = [seq for seq, decision in live.decisions if decision == TrialScheduler.STOP]
    assert bool(stopped or len(ended) > live.at_their_end()) == (kind["kind"] != "none")
    again = scheduler(request, EPOCHS)
    trials = {number: stand_in(f"again-{number}", {}) for number in live.trials}
    assert list(replay(again, trials, live.results, ended)) == live.decisions
    assert [n for n, trial in trials.items() if trial.is_finished()] == ended


@pytest.mark.parametrize("kind", SCHEDULERS[1:], ids=lambda kind: kind["kind"])
def test_after_a_replay_the_next_decision_is_that_of_one_longer_run(kind: dict[str, Any]) -> None:
    request = study(kind)
    whole = Live(request)
    whole.run(180)
    for cut in range(9, len(whole.results), 3):
        live = Live(request)
        live.run(cut)
        ended = [number for number, trial in live.trials.items() if trial.is_finished()]
        trials = {number: stand_in(f"again-{number}", {}) for number in live.trials}
        again = scheduler(request, EPOCHS)
        list(replay(again, trials, live.results, ended))
        statuses = {number: trial.status for number, trial in live.trials.items()}
        following = whole.results[cut]
        live.scheduler, live.trials = again, trials
        told = {"epoch": following.epoch, **following.metrics}
        trials[following.trial].set_status(Trial.RUNNING)
        assert {n: t.status for n, t in trials.items() if t.is_finished()} == {
            n: status for n, status in statuses.items() if status == Trial.TERMINATED
        }
        decision = again.on_trial_result(live, trials[following.trial], told)
        assert (following.seq, decision) == whole.decisions[cut]


def test_a_trial_that_was_cancelled_in_its_pause_is_told_of_at_the_end() -> None:
    request = study({"kind": "hyperband"})
    live = Live(request)
    live.run(180)
    cut = next(seq for seq, decision in live.decisions if decision == TrialScheduler.PAUSE)
    trials = {number: stand_in(f"again-{number}", {}) for number in live.trials}
    cancelled = live.results[cut - 1].trial
    list(replay(scheduler(request, EPOCHS), trials, live.results[:cut], [cancelled]))
    assert [n for n, trial in trials.items() if trial.is_finished()] == [cancelled]


def test_rungs_are_in_epochs_and_the_last_epoch_is_no_stop() -> None:
    asha = scheduler(study({"kind": "asha", "grace_epochs": 9}), EPOCHS)
    trials = {n: stand_in(f"trial-{n}", {}) for n in (1, 2)}
    results = [
        TrialResult(1, 1, 27, {"kid_pca": 1.0}, NOW),
        TrialResult(2, 2, 8, {"kid_pca": 9.0}, NOW),  # below the first rung
    ]
    decisions = list(replay(asha, trials, results, [1]))
    assert decisions == [(1, TrialScheduler.CONTINUE), (2, TrialScheduler.CONTINUE)]


def test_population_based_training_is_synchronous_and_keeps_the_scale_within_its_bounds() -> None:
    built = scheduler(study(PBT), EPOCHS)
    assert built._synch
    for scale in (0.01, 0.3, 9.0):
        found = built._custom_explore_fn({"p0": scale, "other": 1})
        assert found == {"p0": min(max(scale, 0.05), 1.0), "other": 1}


class Silent:
    """A way to a service that has nothing to say."""

    def say(self, message: Said) -> None:
        raise AssertionError(message)

    def ask(self, message: Said) -> None:
        raise AssertionError(message)


def test_a_population_begins_when_it_is_whole_and_goes_on_without_one_that_failed() -> None:
    live = Live(study(PBT, budget={"trials": 3}))
    live.trials = {
        number: stand_in(f"trial-{number}", {"p0": 0.1 * number, CONFIGURATION: number - 1})
        for number in (1, 2, 3)
    }
    places = Places(2, frozenset(), all_at_once=True, in_line=False)
    request = study(PBT, budget={"trials": 3})
    real = scheduler(request, EPOCHS)
    population = Population(real, request, EPOCHS, places, Silent())
    members: list[Any] = list(live.trials.values())
    first, second, third = members
    for trial in members:
        assert population.choose_trial_to_run(live) is None
        population.on_trial_add(live, trial)
        trial.set_status(Trial.PAUSED)
    assert population.choose_trial_to_run(live) == first
    for trial in (first, second):
        told = {"epoch": 9, "kid_pca": math.nan}  # a number that is none is the worst
        assert population.on_trial_result(live, trial, told) == TrialScheduler.NOOP
    third.set_status(Trial.RUNNING)
    assert population.choose_trial_to_run(live) is None
    population.on_trial_error(live, third)
    third.set_status(Trial.TERMINATED)
    assert population.choose_trial_to_run(live) == first
    first.set_status(Trial.RUNNING)
    at_the_end = {"epoch": EPOCHS, "kid_pca": 1.0}
    assert population.on_trial_result(live, first, at_the_end) == TrialScheduler.CONTINUE


class Witness(FIFOScheduler):  # type: ignore[misc]  # ray's modules are not followed
    """A scheduler and a way to the service, with one list of what both hear."""

    metric = "kid_pca"

    def __init__(self, decision: str) -> None:
        super().__init__()
        self.heard: list[Any] = []
        self.is_lost = False
        self._decision = decision

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        self.heard.append((trial.trial_id, result))
        return self._decision

    def say(self, message: Said) -> None:
        self.heard.append(("said", message))

    def ask(self, message: Said) -> None:
        if self.is_lost:
            raise ConnectionError
        self.heard.append(("stored", message))


@pytest.mark.parametrize("decision", [TrialScheduler.CONTINUE, TrialScheduler.PAUSE])
def test_a_result_is_stored_before_a_scheduler_is_told_of_it(decision: str) -> None:
    witness = Witness(decision)
    places = Places(1, frozenset(), all_at_once=False)
    places.take(4)
    between = LedgerScheduler(witness, (), (), places, witness)
    trial = stand_in("trial-4", {CONFIGURATION: 4})
    told = {"epoch": 3, "kid_pca": 0.2}
    assert between.on_trial_result(None, trial, told) == decision
    stored = ("stored", Reported(configuration=4, epoch=3))
    pauses = decision == TrialScheduler.PAUSE
    after = [("said", Paused(configuration=4))] if pauses else []
    assert witness.heard == [stored, ("trial-4", told), *after]
    assert places.is_full != pauses
    witness.heard, witness.is_lost = [], True  # what is not stored, nobody decides on
    with pytest.raises(ConnectionError):
        between.on_trial_result(None, trial, told)
    assert not witness.heard
