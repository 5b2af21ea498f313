"""Studies on a real Ray: the driver is a real Tuner in its own process, trials are real jobs."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from service.cluster.ray_cluster import RayCluster
from service.jobs import FINAL_STATES, JobState
from service.jobstore import JobStore
from service.settings import ray_environment
from service.studies.checking import require
from service.studies.ledger import Phase, Study, StudyReason, Trial
from service.studies.request import StudyRequest
from tests.factories import tiny_spec
from tests.harness import Service, make_service
from workers.artifacts import LocalStore

SCALE = "/trainer/spread/scale"
SPACE: dict[str, Any] = {SCALE: {"loguniform": [0.05, 1.0]}}
CONFIRMATION: dict[str, Any] = {"top": 2, "seeds": [1, 2]}


def spec_of(epochs: int) -> dict[str, Any]:
    """A training of a second at most, with enough held-out data for distances."""
    spec = tiny_spec(epochs=epochs, batch_size=60).model_dump()
    return {**spec, "dataset": {"kind": "line", "samples": 300}}


@pytest.fixture(scope="module")
def one_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    ray_environment(joining=False)
    made = RayCluster("", tmp_path_factory.mktemp("ray"), 2, "studies")
    made.start()
    yield made
    made.close()


@dataclass
class Studied:
    """A service at work whose studies a test stores, and looks at."""

    service: Service

    def add(self, name: str = "which noise", epochs: int = 3, **fields: Any) -> Study:
        body = {
            "name": name,
            "spec": spec_of(epochs),
            "space": SPACE,
            "objective": {"metric": "kid", "mode": "min"},
            "budget": {"trials": 4},
            "concurrency": 2,
            "confirmation": CONFIRMATION,
            **fields,
        }
        now = datetime.now(UTC)
        study = Study(
            id=f"study-{time.monotonic_ns():x}",
            request=require(StudyRequest.model_validate(body)),
            is_overridden=False,
            state=JobState.QUEUED,
            reason=StudyReason.SUBMITTED,
            message="",
            version=1,
            created_at=now,
            updated_at=now,
        )
        self.service.jobs.ledger.add(study)
        self.service.watcher.wake()
        return study

    def wait(self, study: Study, is_there: Callable[[Study], bool]) -> Study:
        give_up_at = time.monotonic() + 240
        while not is_there(now := self.service.jobs.ledger.get(study.id)):
            assert time.monotonic() < give_up_at, f"the study stays {now.state}: {now.message}"
            time.sleep(0.02)
        return now

    def wait_for_end(self, study: Study) -> Study:
        return self.wait(study, lambda now: now.state in FINAL_STATES)

    def trials(self, study: Study, phase: Phase = Phase.SEARCH) -> list[Trial]:
        return [t for t in self.service.jobs.ledger.trials(study.id) if t.phase is phase]


@pytest.fixture
def studied(one_ray: RayCluster, tmp_path: Path) -> Iterator[Studied]:
    jobs = JobStore.open(f"sqlite:///{tmp_path}/jobs.db")
    store = LocalStore(tmp_path / "artifacts")
    service = make_service(jobs, store, tmp_path, one_ray, start_timeout_s=120)
    one_ray.listen(service.watcher.wake)
    service.watcher.start()
    yield Studied(service)
    service.watcher.stop(5)
    one_ray.tend(frozenset())
    jobs.close()


def test_a_study_is_searched_confirmed_and_over(studied: Studied) -> None:
    study = studied.wait_for_end(studied.add())
    assert (study.state, study.reason) == (JobState.SUCCEEDED, StudyReason.COMPLETED)
    searched = studied.trials(study)
    assert [trial.configuration for trial in searched] == [0, 1, 2, 3]
    assert {trial.state for trial in searched} == {JobState.SUCCEEDED}
    fresh = studied.trials(study, Phase.CONFIRMATION)
    assert sorted((t.configuration, t.seed) for t in fresh) == sorted(
        (n, seed) for n in {t.configuration for t in fresh} for seed in (1, 2)
    )
    results = studied.service.jobs.ledger.results(study.id)
    assert {r.trial for r in results} == {t.number for t in (*searched, *fresh)}
    values = {
        t.configuration: r.metrics["kid_pca"]
        for r in results
        for t in searched
        if t.number == r.trial
    }
    assert {t.configuration for t in fresh} == set(sorted(values, key=lambda n: values[n])[:2])
