"""A study as its user has it, over HTTP; it outlives the service that runs it, by kill -9 and by a
stop in order."""

import signal
from functools import partial
from pathlib import Path

import numpy as np

from api.client import StudyHandle
from service.jobs import JobState
from service.jobstore import JobStore
from service.studies.ledger import Phase
from tests.e2e.conftest import Start
from tests.e2e.processes import wait_until, wait_until_gone
from tests.studying import RATE, study_spec

SLOW = study_spec(epochs=1000, every=250)  # seconds, with results on the way
RUNGS = [1, *range(250, 1001, 250)]
# After so many trials of a phase have finished, while others run or are still to come.
ENDS = (
    (signal.SIGTERM, Phase.SEARCH, 1),
    (signal.SIGKILL, Phase.SEARCH, 2),
    (signal.SIGKILL, Phase.CONFIRMATION, 1),
)


def test_a_study_goes_on_under_the_next_service_to_its_answer(start: Start, tmp_path: Path) -> None:
    service = start(SPREADTRAIN_CPUS="2")
    file = tmp_path / "points.npz"
    np.savez(file, data=np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32))
    digest = service.client.upload("points", file).digest
    study = service.client.submit_study(
        {
            "name": "which rate",
            "spec": {
                **SLOW,
                "dataset": {"name": "points", "held_out_fraction": 0.5},
                "trainer": SLOW["trainer"] | {"quality": {"at": "checkpoints", "samples": 100}},
                "checkpoint_every_epochs": 250,
            },
            "space": {RATE: {"loguniform": [1e-4, 1e-2]}},
            "objective": {"metric": "kid", "mode": "min"},
            "budget": {"trials": 4},
            "concurrency": 2,
            "confirmation": {"top": 2, "seeds": [1, 2]},
        }
    )
    jobs = JobStore.open(f"sqlite:///{tmp_path}/data/spreadtrain.db")
    done: dict[int, int] = {}
    for number, phase, count in ENDS:
        wait_until(partial(_has_finished, study, phase, count), 240, "a trial to finish")
        pids = service.census()
        service.stop(number)
        wait_until_gone(pids)
        done = {**_finished(jobs, study), **done}
        service = start(SPREADTRAIN_CPUS="2")
        study = service.client.studies.get(study.id)
    study.wait(240)
    assert study.body.reason == "completed"
    trials = list(study.trials())
    assert [trial.configuration for trial in trials[:4]] == [0, 1, 2, 3]
    assert sorted(trial.seed for trial in trials[4:]) == [1, 1, 2, 2]
    assert {trial.state for trial in trials} == {"succeeded"}
    for trial in trials:
        if trial.number in done:  # it is not repeated
            assert len(study.job(trial).body.attempts) == done[trial.number]
    stored = jobs.ledger.results(study.id)
    for trial in trials:  # and none of its results is lost, or there twice
        assert [one.epoch for one in stored if one.trial == trial.number] == RUNGS
    jobs.close()

    best = study.best()
    assert (best.stage, best.is_candidate) == ("confirmed", False)
    assert best.interval is not None
    assert best.interval.low is not None
    assert best.interval.high is not None
    assert best.interval.low < best.interval.mean < best.interval.high
    assert [{*one.by_seed} for one in best.confirmed] == [{"1", "2"}] * 2
    assert best.indistinguishable[0].configuration == best.configuration
    assert (best.measured.metric, best.measured.extractor) == ("kid_pca", "pca")
    assert (best.measured.samples, best.measured.reference_digest) == (100, digest)
    assert "frechet_pca" in [check.metric for check in best.checks]
    curve = study.curve(RATE)
    assert (curve.metric, curve.measured) == ("kid_pca", best.measured)
    assert {point.trial for point in curve.points} == {trial.number for trial in trials}
    assert study.curve_bytes("png", RATE).startswith(b"\x89PNG")

    promoted = study.promote(epochs=100_000)
    searched = [trial for trial in trials if trial.configuration == best.configuration]
    assert promoted.body.parent is not None
    assert promoted.body.parent.job in [trial.job for trial in searched]
    assert promoted.body.spec["trainer"]["epochs"] == 100_000
    promoted.cancel()
    wait_until(lambda: promoted.refresh().state == "cancelled", 240, "its end")


def _has_finished(study: StudyHandle, phase: Phase, count: int) -> bool:
    return len(list(study.trials(phase=phase.value, state="succeeded"))) >= count


def _finished(jobs: JobStore, study: StudyHandle) -> dict[int, int]:
    """The trials that have succeeded, and how many attempts each had."""
    return {
        trial.number: len(jobs.attempts(trial.job_id))
        for trial in jobs.ledger.trials(study.id)
        if trial.state is JobState.SUCCEEDED
    }
