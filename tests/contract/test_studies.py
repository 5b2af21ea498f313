"""Studies on a real Ray: the driver is a real Tuner in its own process, trials are real jobs."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from service.cluster.ray_cluster import RayCluster
from service.jobs import FINAL_STATES, JobState, Reason
from service.jobstore import JobStore
from service.logs import Cursor, Logs
from service.settings import ray_environment
from service.studies.configuring import numbered
from service.studies.ledger import Phase, Study, StudyReason
from service.studies.population import SCALE, begun_at
from service.studies.request import Budget, RandomSearch
from tests.e2e.processes import process_named, wait_until, wait_until_gone
from tests.harness import make_service
from tests.studying import Studied, study_spec
from workers.artifacts import LocalStore

SLOW = study_spec(epochs=1500, every=250)  # seconds, with results on the way
RESULTS = [1, *range(250, 1501, 250)]  # the first epoch has a checkpoint


@pytest.fixture(scope="module")
def one_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    ray_environment(joining=False)
    made = RayCluster("", tmp_path_factory.mktemp("ray"), 2, "studies")
    made.start()
    yield made
    made.close()


@pytest.fixture
def studied(one_ray: RayCluster, tmp_path: Path) -> Iterator[Studied]:
    jobs = JobStore.open(f"sqlite:///{tmp_path}/jobs.db")
    store = LocalStore(tmp_path / "artifacts")
    service = make_service(jobs, store, tmp_path, one_ray, start_timeout_s=120)
    one_ray.listen(spoken=service.watcher.hear, ended=service.watcher.hear_end)
    service.watcher.start()
    yield Studied(service, is_watched=True)
    service.watcher.stop(5)
    one_ray.tend(frozenset())
    jobs.close()


def driver() -> int:
    return process_named("tune_driver", os.getpid())


def has_driver() -> bool:
    found = False
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # zombies included
            found = found or "tune_driver" in " ".join(child.cmdline())
    return found


def pid_of_running(studied: Studied, study: Study, phase: Phase) -> tuple[int, int] | None:
    """A running trial's number and the process of its attempt."""
    for trial in studied.trials(study, phase):
        attempts = studied.service.jobs.attempts(trial.job_id)
        if trial.state is JobState.RUNNING and attempts[-1].first_step_at is not None:
            return trial.number, attempts[-1].pid or 0
    return None


def kill_one(studied: Studied, study: Study, phase: Phase) -> int:
    """Kill a trial at work, which then goes on; its number. One that the study stops at that very
    moment does not."""
    while True:
        found = wait_until(lambda: pid_of_running(studied, study, phase), 240, "a trial at work")
        assert found is not None
        number, pid = found
        os.kill(pid, signal.SIGKILL)

        def is_seen(number: int = number) -> bool:
            (trial,) = [t for t in studied.trials(study, phase) if t.number == number]
            return studied.attempts(study)[number] > 1 or trial.state in FINAL_STATES

        wait_until(is_seen, 240, "its next attempt")
        if studied.attempts(study)[number] > 1:
            return number


def test_an_extension_equals_one_longer_study(studied: Studied) -> None:
    study = studied.wait_for_end(studied.add(budget={"trials": 2}))
    assert (study.state, study.reason) == (JobState.SUCCEEDED, StudyReason.COMPLETED)
    assert len(studied.of_fresh_seeds(study)) == 4
    before = studied.attempts(study)
    studied.service.jobs.ledger.extend(study.id, Budget(trials=3))
    studied.service.watcher.wake()
    longer = studied.wait_for_end(study)
    assert (longer.state, longer.attempt) == (JobState.SUCCEEDED, 2)
    search = RandomSearch(kind="random")
    assert [trial.values for trial in studied.trials(study)] == [
        numbered(study.request.space, search, 0, number) for number in range(3)
    ]
    assert before.items() <= studied.attempts(study).items()


def test_kills_in_each_phase_lose_no_finished_trial_and_repeat_none(studied: Studied) -> None:
    """With a model that learns of results, and a scheduler that decides by them."""
    study = studied.add(
        spec=SLOW,
        search={"kind": "tpe"},
        scheduler={"kind": "asha", "grace_epochs": 500, "reduction_factor": 2},
        budget={"trials": 4},
        confirmation={"top": 1, "seeds": [1, 2]},
    )
    killed = set()
    studied.wait(study, lambda now: bool(studied.epochs(now)))
    os.kill(driver(), signal.SIGKILL)
    studied.wait(study, lambda now: now.attempt == 2 and now.reason is StudyReason.SEARCHING)
    os.kill(psutil.Process(driver()).ppid(), signal.SIGKILL)
    killed.add(kill_one(studied, study, Phase.SEARCH))
    wait_until(lambda: not has_driver(), 240, "the end of the driver, which is not needed")
    killed.add(kill_one(studied, study, Phase.CONFIRMATION))
    ended = studied.wait_for_end(study)
    assert (ended.state, ended.reason) == (JobState.SUCCEEDED, StudyReason.COMPLETED)
    assert ended.attempt >= 3
    assert [trial.configuration for trial in studied.trials(study)] == [0, 1, 2, 3]
    assert len(studied.of_fresh_seeds(study)) == 2
    attempts, epochs = studied.attempts(study), studied.epochs(study)
    for trial in studied.service.jobs.ledger.trials(study.id):
        assert (attempts[trial.number] > 1) == (trial.number in killed)
        if trial.reason is Reason.STOPPED_BY_STUDY:
            assert 500 in epochs[trial.number]
            assert epochs[trial.number] == RESULTS[: len(epochs[trial.number])]
        else:
            assert epochs[trial.number] == RESULTS


def test_a_population_on_ray_exchanges_and_survives_its_driver(studied: Studied) -> None:
    study = studied.add(
        spec=study_spec(epochs=6, every=1),
        space={SCALE: {"loguniform": [0.05, 1.0]}},
        scheduler={"kind": "pbt", "interval_epochs": 2},
        budget={"trials": 4},
        confirmation={"top": 1, "seeds": [1]},
        override_guard=True,
    )
    studied.wait(study, lambda now: len(studied.trials(now)) > 4)  # one has taken over
    os.kill(driver(), signal.SIGKILL)
    ended = studied.wait_for_end(study)
    assert (ended.state, ended.attempt) == (JobState.SUCCEEDED, 2), ended.message
    trials, epochs = studied.trials(study), studied.epochs(study)
    assert len(trials) == 4 + 2
    for trial in trials:
        job = studied.service.jobs.get(trial.job_id)
        assert (job.parent is not None) == (trial.configuration >= 4)
        first, last = begun_at(trial.values) + 1, epochs[trial.number][-1]
        assert epochs[trial.number] == list(range(first, last + 1))
        assert (last == 6) != (trial.reason is Reason.STOPPED_BY_STUDY)


def test_trials_of_several_workers_run_one_after_another_to_their_end(studied: Studied) -> None:
    study = studied.add(
        spec=study_spec(resources={"workers": 2}),  # all the cores that there are
        concurrency=1,
        budget={"trials": 2},
        confirmation={"top": 1, "seeds": [1]},
    )
    ended = studied.wait_for_end(study)
    assert (ended.state, ended.reason) == (JobState.SUCCEEDED, StudyReason.COMPLETED), ended.message
    trials = studied.service.jobs.ledger.trials(study.id)
    assert [trial.phase for trial in trials] == [Phase.SEARCH] * 2 + [Phase.CONFIRMATION]
    logs = Logs(studied.service.jobs, studied.service.artifacts)
    for trial in trials:
        assert trial.reason is Reason.COMPLETED, trial.message
        assert studied.epochs(study)[trial.number] == [1, 2, 3]
        said = logs.read(trial.job_id, 1, Cursor(), 100, rank=1).lines
        assert "2 worker(s) of 1 core(s)" in said[0].line.text
    assert set(studied.attempts(study).values()) == {1}


def test_a_cancelled_study_leaves_no_process_of_its_driver(studied: Studied) -> None:
    study = studied.add(spec=study_spec(epochs=100_000, every=1000))
    found = wait_until(lambda: pid_of_running(studied, study, Phase.SEARCH), 240, "a trial")
    assert found is not None
    pids = frozenset({driver(), psutil.Process(driver()).ppid(), found[1]})
    studied.service.jobs.ledger.request_cancel(study.id)
    studied.service.watcher.wake()
    assert studied.wait_for_end(study).state is JobState.CANCELLED
    wait_until_gone(pids)
