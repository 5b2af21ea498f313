"""Studies as the watcher runs them; the driver is played, the trials are real jobs in threads."""

import contextlib
from pathlib import Path
from typing import Any

import pytest

from service import watcher
from service.errors import NotReady
from service.jobs import JobState, Reason
from service.jobstore import JobStore
from service.studies import running as running_module
from service.studies.channel import Ended, Result, Stored
from service.studies.configuring import numbered
from service.studies.ledger import Phase, Study, StudyReason, Trial, TrialResult
from service.studies.readings import Readings
from service.studies.request import Budget, RandomSearch, StudyRequest
from tests.factories import long_spec, request
from tests.harness import make_service
from tests.looking import looks
from tests.played_driver import PlayedCluster
from tests.studying import METRIC, Studied, study_spec
from workers.artifacts import LocalStore

RUNGS: dict[str, Any] = {"kind": "asha", "grace_epochs": 1}
ENDLESS = study_spec(epochs=100_000, every=50)
SLOW = study_spec(epochs=200, every=20)  # a second, with its results
TEN = [1, *range(20, 201, 20)]  # the first epoch has a checkpoint, and is evaluated with it


def is_searching(studied: Studied, study: Study) -> bool:
    return any(trial.state is JobState.RUNNING for trial in studied.trials(study))


def is_training(studied: Studied, study: Study) -> bool:
    """All trials that there are have an attempt that has made a step."""
    trials = studied.trials(study)
    attempts = [studied.service.jobs.attempts(trial.job_id) for trial in trials]
    return bool(trials) and all(
        trial.state is JobState.RUNNING and each[-1].first_step_at is not None
        for trial, each in zip(trials, attempts, strict=True)
    )


def states(studied: Studied, study: Study) -> set[JobState]:
    return {trial.state for trial in studied.trials(study)}


def end(studied: Studied, study: Study) -> None:
    studied.service.jobs.ledger.request_cancel(study.id)
    assert studied.wait_for_end(study).state is JobState.CANCELLED


def test_a_study_is_searched_confirmed_and_over(studied: Studied) -> None:
    study = studied.wait_for_end(studied.add())
    assert (study.state, study.reason) == (JobState.SUCCEEDED, StudyReason.COMPLETED)
    searched = studied.trials(study)
    assert [trial.configuration for trial in searched] == [0, 1, 2, 3]
    values = {r.trial: r.metrics[METRIC] for r in studied.service.jobs.ledger.results(study.id)}
    best = sorted(searched, key=lambda trial: values[trial.number])[:2]
    assert studied.of_fresh_seeds(study) == sorted(
        (trial.configuration, seed) for trial in best for seed in (1, 2)
    )
    assert set(studied.epochs(study)) == set(studied.attempts(study))
    assert set(studied.attempts(study).values()) == {1}
    assert {t.state for t in studied.service.jobs.ledger.trials(study.id)} == {JobState.SUCCEEDED}


@pytest.mark.parametrize(("scheduler", "epochs"), [({"kind": "none"}, set()), (RUNGS, {1, 2, 3})])
def test_a_driver_is_told_what_a_scheduler_decides_by_and_ends_alone_without_one(
    studied: Studied, cluster: PlayedCluster, scheduler: dict[str, Any], epochs: set[int]
) -> None:
    study = studied.wait_for_end(studied.add(scheduler=scheduler))
    assert {told.epoch for told in cluster.told if isinstance(told, Result)} == epochs
    ends = [told for told in cluster.told if isinstance(told, Ended)]
    assert sorted((end.configuration, end.epoch) for end in ends) == [(n, 3) for n in range(4)]
    searched = {trial.number: trial for trial in studied.trials(study)}
    stored = studied.service.jobs.ledger.results(study.id)
    assert {number: studied.epochs(study)[number] for number in searched} == {
        number: [1, 2, 3] for number in searched
    }
    last = {searched[r.trial].configuration: r for r in stored if r.trial in searched}
    assert all(end.metrics == last[end.configuration].metrics for end in ends)


def test_results_of_what_is_over_are_no_longer_held(
    studied: Studied, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Readings] = []

    def make(jobs: JobStore, asked: StudyRequest) -> Readings:
        made.append(Readings(jobs, asked))
        return made[-1]

    monkeypatch.setattr(running_module, "Readings", make)
    study = studied.wait_for_end(studied.add())
    (readings,) = made
    assert [readings.of(trial) for trial in studied.trials(study)] == [{}] * 4
    assert all(readings.of(trial) for trial in studied.trials(study, Phase.CONFIRMATION))


def test_what_a_driver_says_is_answered_before_a_round_is_due(
    studied: Studied, cluster: PlayedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no more trials start than it has places, though no round has counted those that run."""
    monkeypatch.setattr(watcher, "ROUND_INTERVAL_S", 600.0)
    cluster.ahead = 2
    study, watching = studied.add(spec=ENDLESS), studied.service.watcher
    watching.start()  # the first round admits it
    try:
        for _ in looks(60):
            if cluster.drivers:
                break
            watching.wake()  # the second one starts its driver
        for _ in looks(60):
            if is_searching(studied, study):
                break
            watching.hear()
        begun = [t for t in studied.trials(study) if t.state is JobState.RUNNING]
        assert begun
        before = cluster.exchanges
        for _ in looks(60):
            if cluster.exchanges >= before + 3:
                break
            watching.hear()
        assert cluster.exchanges >= before + 3
        now = [trial.state for trial in studied.trials(study)]
        assert now == [*[JobState.RUNNING] * 2, *[JobState.QUEUED] * 2]
        attempts = [studied.service.jobs.attempts(trial.job_id)[-1] for trial in begun]
        assert {attempt.next_chunk for attempt in attempts} == {0}  # no round has followed them
    finally:
        watching.stop(5)


def test_a_study_holds_its_allotment_and_the_queue_is_in_order(studied: Studied) -> None:
    first = studied.add(spec=ENDLESS)
    studied.wait(first, lambda now: len(studied.trials(now)) == 2)
    second = studied.add()
    job = studied.service.submit(request())
    for _ in range(5):
        studied.service.watcher.round()
    assert studied.service.jobs.get(job.id).state is JobState.QUEUED
    assert studied.now(second).state is JobState.QUEUED
    assert studied.now(second).message == (
        "Waits until 2 trial(s) at one time, each of 1 worker(s) with 1 core(s), find room, which "
        "running studies hold."
    )
    studied.service.jobs.ledger.request_cancel(first.id)
    assert studied.wait_for_end(first).state is JobState.CANCELLED
    studied.wait_for_end(second)
    studied.service.run_to_end(job)
    last = max(trial.ended_at or trial.created_at for trial in studied.trials(second))
    assert studied.service.jobs.attempts(job.id)[0].created_at > last


def test_the_round_that_admits_a_study_says_that_there_is_work(studied: Studied) -> None:
    study = studied.add()
    # Or its driver would be started a second later, with the next round of a quiet service.
    assert studied.service.watcher.round()
    assert (studied.now(study).state, studied.trials(study)) == (JobState.RUNNING, [])


def test_more_than_the_cluster_holds_is_reduced_and_said(studied: Studied) -> None:
    study = studied.add(spec=ENDLESS, concurrency=5)
    studied.wait(study, lambda now: is_searching(studied, now))
    for _ in range(5):
        studied.service.watcher.round()
    running = [t for t in studied.trials(study) if t.state is JobState.RUNNING]
    assert len(running) == 2
    studied.service.jobs.ledger.request_cancel(study.id)
    studied.wait_for_end(study)


def test_a_trial_that_never_fits_is_said(studied: Studied) -> None:
    study = studied.add(spec=study_spec(resources={"cpus_per_worker": 3}))
    studied.service.watcher.round()
    assert studied.now(study).state is JobState.QUEUED
    assert "does not have" in studied.now(study).message


def test_a_trial_that_is_stopped_has_succeeded_with_a_checkpoint(
    studied: Studied, cluster: PlayedCluster
) -> None:
    cluster.stop_at = {0: 2, 1: 1}
    spec = study_spec(epochs=100_000)
    study = studied.add(spec=spec, scheduler=RUNGS, budget={"trials": 2, "max_epochs": 10**9})
    ended = studied.wait_for_end(study)
    assert (ended.state, ended.reason) == (JobState.FAILED, StudyReason.NO_RESULT)
    for trial, epoch in zip(studied.trials(study), (2, 1), strict=True):
        assert (trial.state, trial.reason) == (JobState.SUCCEEDED, Reason.STOPPED_BY_STUDY)
        assert studied.epochs(study)[trial.number] == list(range(1, epoch + 1))
        assert studied.service.jobs.checkpoints(trial.job_id)[-1].has_train_state


def test_a_trial_pauses_and_goes_on_from_its_checkpoint(
    studied: Studied, cluster: PlayedCluster
) -> None:
    cluster.pause_at = {0: 50}
    study = studied.add(spec=ENDLESS, scheduler=RUNGS, concurrency=1, budget={"trials": 1})
    studied.wait(study, lambda now: states(studied, now) == {JobState.PAUSED})
    (trial,) = studied.trials(study)
    step = studied.service.jobs.checkpoints(trial.job_id)[-1].step
    cluster.pause_at = {}
    cluster.kill_driver()  # the next one lets it go on
    studied.wait(study, lambda now: is_training(studied, now))
    first, second = studied.service.jobs.attempts(trial.job_id)
    assert (first.reason, second.resumed_from_step) == (Reason.PAUSED, step)
    end(studied, study)
    epochs = studied.epochs(study)[trial.number]
    assert epochs == [1, *range(50, epochs[-1] + 1, 50)]


def test_a_killed_driver_is_followed_by_one_that_repeats_nothing(
    studied: Studied, cluster: PlayedCluster
) -> None:
    study = studied.add(spec=SLOW, scheduler=RUNGS, budget={"trials": 5})
    for finished in (1, 2, 4):
        studied.wait(study, lambda now, least=finished: studied.finished(now) >= least)  # type: ignore[misc]
        if cluster.drivers:
            cluster.kill_driver()
    ended = studied.wait_for_end(study)
    assert (ended.state, ended.reason) == (JobState.SUCCEEDED, StudyReason.COMPLETED)
    assert ended.attempt > 1
    searched = studied.trials(study)
    assert [trial.configuration for trial in searched] == [0, 1, 2, 3, 4]
    assert set(studied.attempts(study).values()) == {1}
    for trial in searched:
        assert studied.epochs(study)[trial.number] == TEN


@pytest.mark.parametrize("scheduler", [{"kind": "none"}, RUNGS])
def test_what_ends_while_no_driver_lives_is_told_to_the_next(
    studied: Studied,
    cluster: PlayedCluster,
    monkeypatch: pytest.MonkeyPatch,
    scheduler: dict[str, Any],
) -> None:
    monkeypatch.setattr(running_module, "BACKOFF_S", 3.0)
    study = studied.add(spec=SLOW, budget={"trials": 2}, scheduler=scheduler)
    studied.wait(study, lambda now: is_training(studied, now))
    cluster.kill_driver()
    cluster.told.clear()
    studied.wait(study, lambda now: studied.finished(now) == 2)
    ended = studied.wait_for_end(study)
    ends = [told.configuration for told in cluster.told if isinstance(told, Ended)]
    assert sorted(ends) == [0, 1]
    assert (ended.state, ended.reason) == (JobState.SUCCEEDED, StudyReason.COMPLETED)
    assert len(studied.of_fresh_seeds(study)) == 4
    for trial in studied.trials(study):
        assert studied.epochs(study)[trial.number] == TEN


def test_what_the_database_refuses_is_carried_out_again_and_answered_once(
    studied: Studied, cluster: PlayedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_module, "BACKOFF_S", 1.0)
    study = studied.add(budget={"trials": 2})
    studied.wait(study, lambda now: is_searching(studied, now))
    cluster.kill_driver()
    studied.wait(study, lambda now: studied.finished(now) == 2)
    cluster.told.clear()
    ledger = studied.service.jobs.ledger
    refused: list[object] = []
    add_results = ledger.add_results

    def refuse_once(*given: Any) -> list[TrialResult]:
        if not refused:
            refused.append(given)
            raise NotReady("the database does not answer")
        return add_results(*given)

    monkeypatch.setattr(ledger, "add_results", refuse_once)
    for _ in looks(60):
        if refused:
            break
        with contextlib.suppress(NotReady):
            studied.service.watcher.round()
    assert studied.wait_for_end(study).state is JobState.SUCCEEDED
    assert sum(isinstance(told, Stored) for told in cluster.told) == 2  # one for each suggestion
    assert {epochs[-1] for epochs in studied.epochs(study).values()} == {3}


def test_drivers_that_die_while_trials_go_on_fail_the_study(
    studied: Studied, cluster: PlayedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results that the service stores by itself are no work of a driver's."""
    monkeypatch.setattr(running_module, "BACKOFF_S", 0.01)
    study = studied.add(spec=ENDLESS)
    for _ in range(running_module.LOSSES):
        before = len(studied.service.jobs.ledger.results(study.id))

        def has_more(now: Study, known: int = before) -> bool:
            return bool(cluster.drivers) and (
                len(studied.service.jobs.ledger.results(now.id)) > known
            )

        studied.wait(study, has_more)
        cluster.kill_driver()
    ended = studied.wait_for_end(study)
    assert (ended.state, ended.reason) == (JobState.FAILED, StudyReason.DRIVER_LOST)


def test_drivers_that_die_without_a_result_fail_the_study(
    studied: Studied, cluster: PlayedCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_module, "BACKOFF_S", 0.01)
    cluster.are_stillborn = True
    study = studied.wait_for_end(studied.add())
    assert (study.state, study.reason) == (JobState.FAILED, StudyReason.DRIVER_LOST)
    assert "3 times" in study.message
    assert "signal 9" in study.message
    cluster.are_stillborn = False
    studied.service.jobs.ledger.retry(study.id)
    assert studied.wait_for_end(study).state is JobState.SUCCEEDED


def test_a_cancelled_study_leaves_nothing_that_runs(
    studied: Studied, cluster: PlayedCluster
) -> None:
    study = studied.add(spec=ENDLESS)
    studied.wait(study, lambda now: is_searching(studied, now))
    studied.service.jobs.ledger.request_cancel(study.id)
    ended = studied.wait_for_end(study)
    assert (ended.state, ended.reason) == (JobState.CANCELLED, StudyReason.CANCELLED)
    assert {trial.state for trial in studied.trials(study)} == {JobState.CANCELLED}
    assert cluster.drivers == {}
    assert not studied.service.watcher.round()


def test_a_paused_study_goes_on_where_it_was(studied: Studied, cluster: PlayedCluster) -> None:
    study = studied.add(spec=ENDLESS, scheduler=RUNGS)
    studied.wait(study, lambda now: len(studied.epochs(now)) == 2)
    studied.service.jobs.ledger.request_pause(study.id)
    studied.wait(study, lambda now: now.state is JobState.PAUSED)
    assert cluster.drivers == {}
    assert states(studied, study) == {JobState.PAUSED}
    told = studied.epochs(study)
    studied.service.jobs.ledger.resume(study.id)
    # What the first attempts had still said is stored first; one in line may have its first one.
    studied.wait(study, lambda now: all(studied.attempts(now)[number] == 2 for number in told))
    studied.wait(study, lambda now: all(len(studied.epochs(now)[n]) > len(told[n]) for n in told))
    attempts = studied.attempts(study)
    assert {attempts[number] for number in told} == {2}
    end(studied, study)
    for epochs in studied.epochs(study).values():
        assert epochs == [1, *range(50, epochs[-1] + 1, 50)]


def test_an_extended_study_goes_on_from_all_that_it_knows(studied: Studied) -> None:
    study = studied.wait_for_end(studied.add(budget={"trials": 2}))
    before = studied.attempts(study)
    studied.service.jobs.ledger.extend(study.id, Budget(trials=4))
    longer = studied.wait_for_end(study)
    assert longer.state is JobState.SUCCEEDED
    searched = studied.trials(study)
    search = RandomSearch(kind="random")
    assert [trial.values for trial in searched] == [
        numbered(study.request.space, search, 0, n) for n in range(4)
    ]
    assert before.items() <= studied.attempts(study).items()


def test_a_budget_that_is_raised_while_a_study_runs_takes_effect(
    studied: Studied, cluster: PlayedCluster
) -> None:
    study = studied.add(spec=ENDLESS, budget={"trials": 2})
    studied.wait(study, lambda now: is_training(studied, now))
    studied.service.jobs.ledger.extend(study.id, Budget(trials=3))
    studied.wait(study, lambda now: now.attempt == 2 and now.reason is StudyReason.SEARCHING)
    assert set(studied.attempts(study).values()) == {1}
    (driver,) = cluster.drivers.values()
    assert driver.setup.request.budget.trials == 3
    assert [one.standing for one in driver.setup.known] == ["unfinished", "unfinished"]
    end(studied, study)


@pytest.mark.parametrize("limit", [{"max_wall_s": 0.5}, {"max_epochs": 100}])
def test_what_a_limit_cuts_off_goes_on_when_it_is_raised(
    studied: Studied, limit: dict[str, Any]
) -> None:
    study = studied.add(spec=ENDLESS, scheduler=RUNGS, budget={"trials": 2, **limit})
    cut = studied.wait_for_end(study)
    assert cut.state is JobState.SUCCEEDED
    assert cut.reason in (StudyReason.TIME_LIMIT, StudyReason.EPOCH_LIMIT)
    assert "nothing could be confirmed" in cut.message
    begun = {n for n, attempts in studied.attempts(study).items() if attempts}
    # Half a second may be over before a trial begins.
    assert states(studied, study) == {JobState.PAUSED} or ("max_wall_s" in limit and not begun)
    studied.service.jobs.ledger.extend(study.id, Budget(trials=2))
    studied.wait(study, lambda now: is_training(studied, now))
    assert all(studied.attempts(study)[number] == 2 for number in begun)
    end(studied, study)


def test_the_last_result_counts_of_a_trial_whose_end_is_the_limit(studied: Studied) -> None:
    for trials in (1, 2):
        study = studied.add(
            concurrency=1,
            budget={"trials": trials, "max_epochs": 3 * trials},
            confirmation={"top": trials, "seeds": [1]},
        )
        ended = studied.wait_for_end(study)
        assert ended.state is JobState.SUCCEEDED
        assert {trial.reason for trial in studied.trials(study)} == {Reason.COMPLETED}
        assert studied.of_fresh_seeds(study) == [(number, 1) for number in range(trials)]


def test_what_was_being_confirmed_ends_when_a_longer_search_finds_better(studied: Studied) -> None:
    ledger = studied.service.jobs.ledger
    study = studied.add(
        spec=SLOW,
        objective={"metric": METRIC, "mode": "max"},  # by which the first of the draws is not best
        concurrency=1,
        budget={"trials": 1},
        confirmation={"top": 1, "seeds": [1, 2]},
    )

    def confirming() -> list[Trial]:
        return [trial for trial in ledger.trials(study.id) if trial.phase is Phase.CONFIRMATION]

    studied.wait(study, lambda _: any(t.state is JobState.RUNNING for t in confirming()))
    ledger.extend(study.id, Budget(trials=4))
    assert studied.wait_for_end(study).state is JobState.SUCCEEDED
    assert len({trial.configuration for trial in confirming()}) == 2
    assert {trial.state for trial in ledger.trials(study.id)} == {JobState.SUCCEEDED}


def test_a_study_without_a_result_tries_its_failed_trials_again(studied: Studied) -> None:
    space = {"/trainer/batch_size": {"grid": [1000]}}  # more than there are data
    study = studied.add(space=space, budget={"trials": 1})
    failed = studied.wait_for_end(study)
    assert failed.reason is StudyReason.NO_RESULT
    studied.service.jobs.ledger.retry(study.id)
    (trial,) = studied.trials(study)
    assert trial.state is JobState.QUEUED
    again = studied.wait_for_end(study)
    assert again.reason is StudyReason.NO_RESULT
    assert set(studied.attempts(study).values()) == {2}


def test_several_seeds_are_one_configuration(studied: Studied) -> None:
    study = studied.wait_for_end(studied.add(seeds=[0, 7], budget={"trials": 2}))
    assert study.state is JobState.SUCCEEDED
    searched = studied.trials(study)
    assert [(t.configuration, t.seed) for t in searched] == [(0, 0), (0, 7), (1, 0), (1, 7)]
    assert set(studied.epochs(study)) == set(studied.attempts(study))


def test_a_failed_trial_fails_its_configuration_alone(
    studied: Studied,
) -> None:
    space = {"/trainer/batch_size": {"grid": [25, 1000]}}  # there are 100 data
    study = studied.wait_for_end(studied.add(space=space, budget={"trials": 6}))
    states = [trial.state for trial in studied.trials(study)]
    assert JobState.FAILED in states
    assert JobState.SUCCEEDED in states
    assert study.state is JobState.SUCCEEDED
    good = {t.configuration for t in studied.trials(study) if t.state is JobState.SUCCEEDED}
    assert {number for number, _ in studied.of_fresh_seeds(study)} <= good


def test_a_study_whose_trials_all_fail_has_failed(studied: Studied) -> None:
    space = {"/trainer/batch_size": {"grid": [1000, 2000]}}
    study = studied.wait_for_end(studied.add(space=space, budget={"trials": 2}))
    assert (study.state, study.reason) == (JobState.FAILED, StudyReason.NO_RESULT)


def test_another_service_goes_on_with_a_running_study(
    jobs: JobStore, artifacts: LocalStore, tmp_path: Path
) -> None:
    before = PlayedCluster()
    studied = Studied(make_service(jobs, artifacts, tmp_path, before))
    study = studied.add(spec=SLOW, scheduler=RUNGS, budget={"trials": 4})
    studied.wait(study, lambda now: studied.finished(now) >= 1)
    done = {t.number for t in studied.trials(study) if t.state is JobState.SUCCEEDED}
    before.close()  # as when the service is killed, and its Ray with it
    after = PlayedCluster()
    again = Studied(make_service(jobs, artifacts, tmp_path, after))
    ended = again.wait_for_end(study)
    assert (ended.state, ended.attempt) == (JobState.SUCCEEDED, 2)
    assert [t.configuration for t in again.trials(study)] == [0, 1, 2, 3]
    assert all(again.attempts(study)[number] == 1 for number in done)
    for trial in again.trials(study):
        assert again.epochs(study)[trial.number] == TEN
    after.close()


def test_a_service_that_stops_queues_its_studies_again(
    studied: Studied, jobs: JobStore, artifacts: LocalStore, tmp_path: Path
) -> None:
    study = studied.add(spec=ENDLESS)
    studied.wait(study, lambda now: is_searching(studied, now))
    studied.service.watcher.start()
    studied.service.watcher.stop(5)
    now = studied.now(study)
    assert (now.state, now.reason) == (JobState.QUEUED, StudyReason.RECOVERING)
    assert {t.state for t in studied.trials(study)} == {JobState.QUEUED}
    jobs.ledger.request_cancel(study.id)


def test_confirmation_goes_on_after_a_pause(studied: Studied, cluster: PlayedCluster) -> None:
    study = studied.add(spec=SLOW, budget={"trials": 2})
    studied.wait(study, lambda now: bool(studied.trials(now, Phase.CONFIRMATION)))
    assert studied.now(study).reason is StudyReason.CONFIRMING
    studied.service.jobs.ledger.request_pause(study.id)
    studied.wait(study, lambda now: now.state is JobState.PAUSED)
    studied.service.jobs.ledger.resume(study.id)
    assert studied.wait_for_end(study).reason is StudyReason.COMPLETED
    assert len(studied.of_fresh_seeds(study)) == 4
    assert set(studied.epochs(study)) == set(studied.attempts(study))


def test_a_job_that_waits_is_told_which_study_holds_what_it_needs(studied: Studied) -> None:
    study = studied.add(spec=ENDLESS)
    studied.wait(study, lambda now: is_searching(studied, now))
    holders = studied.service.training._queueing.holders()
    assert [(h.job_id, h.study_id, h.resources.workers) for h in holders] == [
        (study.id, study.id, 2)
    ]
    assert (
        studied.service.training.dry_run(request()).waits_for == "resources held by 1 running study"
    )
    waiting = studied.service.submit(request(long_spec()))
    assert studied.service.training.standing(waiting) is not None
    studied.service.watcher.round()
    told = studied.service.jobs.get(waiting.id)
    assert told.message.endswith(", held by 1 running study.")
    later = studied.add()
    behind = studied.service.submit(request())
    standing = studied.service.training.standing(behind)
    assert standing is not None
    assert standing.ahead == 2
    trial = studied.service.jobs.get(studied.trials(study)[0].job_id)
    assert studied.service.training.standing(trial) is None
    for job in (waiting, behind):
        studied.service.training.cancel(job.id)
    for started in (study, later):
        studied.service.jobs.ledger.request_cancel(started.id)
    studied.wait_for_end(study)
    for job in (waiting, behind):
        studied.service.run_until(job, lambda now: now.ended_at is not None)
