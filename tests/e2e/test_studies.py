"""A study outlives the service that runs it: by kill -9, and by a stop in order."""

import signal
from functools import partial
from pathlib import Path

from service.jobs import JobState
from service.jobstore import JobStore
from service.studies.ledger import Phase, Study, StudyReason
from tests.e2e.conftest import Start
from tests.e2e.processes import wait_until, wait_until_gone
from tests.studying import new_study, study_spec

SLOW = study_spec(epochs=1500, every=250)  # seconds, with results on the way
# After so many trials of a phase have finished, while others run or are still to come.
ENDS = (
    (signal.SIGKILL, Phase.SEARCH, 1),
    (signal.SIGTERM, Phase.CONFIRMATION, 1),
)


def test_a_study_goes_on_under_the_next_service(start: Start, tmp_path: Path) -> None:
    service = start(SPREADTRAIN_CPUS="2")
    jobs = JobStore.open(f"sqlite:///{tmp_path}/data/spreadtrain.db")
    ledger = jobs.ledger
    study = ledger.add(
        new_study(spec=SLOW, budget={"trials": 3}, confirmation={"top": 1, "seeds": [1, 2, 3]})
    )
    done: dict[int, int] = {}
    for number, phase, count in ENDS:
        wait_until(partial(_has_finished, jobs, study, phase, count), 240, "a trial to finish")
        pids = service.census()
        service.stop(number)
        wait_until_gone(pids)
        done = {**_finished(jobs, study), **done}
        service = start(SPREADTRAIN_CPUS="2")
    wait_until(lambda: ledger.get(study.id).ended_at is not None, 240, "the study to end")
    ended = ledger.get(study.id)
    assert (ended.state, ended.reason) == (JobState.SUCCEEDED, StudyReason.COMPLETED)
    trials = ledger.trials(study.id)
    assert [trial.configuration for trial in trials[:3]] == [0, 1, 2]
    assert len(trials) == 3 + 3
    assert {trial.state for trial in trials} == {JobState.SUCCEEDED}
    for trial in trials:
        if trial.number in done:  # it is not repeated
            assert len(jobs.attempts(trial.job_id)) == done[trial.number]
        epochs = [
            result.epoch for result in ledger.results(study.id) if result.trial == trial.number
        ]
        assert epochs == [1, *range(250, 1501, 250)]
    jobs.close()


def _has_finished(jobs: JobStore, study: Study, phase: Phase, count: int) -> bool:
    of_phase = {t.number for t in jobs.ledger.trials(study.id) if t.phase is phase}
    return len(_finished(jobs, study).keys() & of_phase) >= count


def _finished(jobs: JobStore, study: Study) -> dict[int, int]:
    """The trials that have succeeded, and how many attempts each had."""
    return {
        trial.number: len(jobs.attempts(trial.job_id))
        for trial in jobs.ledger.trials(study.id)
        if trial.state is JobState.SUCCEEDED
    }
