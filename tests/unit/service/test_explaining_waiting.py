"""Every way of waiting has its true sentence, and what it says would change it does."""

import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.cluster.inline import InlineCluster
from service.errors import ExceedsCapacity, NotReady
from service.explaining import Explanation
from service.jobs import Job, JobState, Reason
from service.jobstore import JobStore
from service.leadership import Leadership
from tests.factories import long_spec, request, tiny_spec
from tests.harness import Service, make_service
from tests.unit.service.explaining_of import Fallen, explaining_of
from workers.artifacts import LocalStore, attempt_prefix, outcome_key
from workers.events import Outcome
from workers.spec import Resources, TrainSpec


def explain(service: Service, job: Job) -> Explanation:
    return explaining_of(service).explain(job.id)


def wide(cpus: int) -> TrainSpec:
    spec = tiny_spec()
    resources = spec.resources.model_copy(update={"cpus_per_worker": cpus})
    return spec.model_copy(update={"resources": resources})


@pytest.fixture
def holder(service: Service) -> Iterator[Job]:
    """A job that holds the only core until the test ends it."""
    job = service.submit(request(long_spec()))
    yield service.run_until(job, lambda now: now.reason is Reason.TRAINING)
    if service.jobs.get(job.id).state in (JobState.RUNNING, JobState.QUEUED, JobState.PAUSED):
        service.training.cancel(job.id)
        service.run_to_end(job)


def test_a_job_that_is_next_says_that_it_starts_at_once(service: Service) -> None:
    said = explain(service, service.submit(request()))
    assert said.rule.name == "about_to_start"
    assert said.standing is not None
    assert said.standing.starts_at is not None
    assert said.claims is not None
    assert (said.claims.free_cpus, said.claims.holders) == (1.0, [])


def test_a_job_without_room_names_who_holds_it_and_starts_when_that_one_is_paused(
    service: Service, holder: Job
) -> None:
    job = service.submit(request())
    service.watcher.round()
    said = explain(service, job)
    assert said.rule.name == "capacity"
    assert "0 of 1 core(s) are free" in said.headline
    assert holder.id in said.headline
    assert said.claims is not None
    assert said.claims.free_cpus == 0.0
    assert [held.job_id for held in said.claims.holders] == [holder.id]
    assert said.since == job.created_at
    first = said.changes[0]
    assert (first.action, first.job_id) == ("pause", holder.id)
    service.training.pause(first.job_id)
    assert service.run_to_end(job).state is JobState.SUCCEEDED


def test_a_job_behind_others_names_them_and_the_rule(service: Service, holder: Job) -> None:
    first = service.submit(request())
    second = service.submit(request())
    urgent = service.submit(request(priority=1))
    said = explain(service, second)
    assert said.rule.name == "priority_order"
    assert said.standing is not None
    assert said.standing.ahead == 2
    assert f"({urgent.id}, {first.id})" in said.headline
    for change in said.changes[:2]:
        assert change.action == "pause"
        service.training.pause(change.job_id)
    assert explain(service, second).rule.name == "capacity"
    assert [change.action for change in said.changes[2:]] == ["cancel", "spec"]


def test_a_job_in_its_back_off_says_why_and_how_to_end_it(service: Service) -> None:
    job = service.submit(request(long_spec()))
    running = service.run_until(job, lambda now: now.reason is Reason.TRAINING)
    lost = Outcome(reason="store_unreachable", message="Lost.", at=running.updated_at)
    key = outcome_key(attempt_prefix(job.id, 1))
    service.artifacts.put(key, lost.model_dump_json().encode())
    service.run_until(job, lambda now: now.state is JobState.QUEUED)
    said = explain(service, job)
    assert said.rule.name == "back_off"
    assert "attempt 1 was lost (store_unreachable)" in said.headline
    assert said.standing is not None
    assert said.standing.starts_at == said.standing.not_before == said.job.not_before
    assert [change.action for change in said.changes] == ["pause", "resume", "cancel"]
    assert said.since > job.created_at
    service.training.pause(job.id)
    service.training.resume(job.id)
    assert explain(service, job).rule.name == "about_to_start"
    service.training.cancel(job.id)
    service.run_to_end(job)


def test_a_job_that_the_cluster_cannot_hold_any_more_says_so(
    jobs: JobStore, artifacts: LocalStore, tmp_path: Path
) -> None:
    with closing(InlineCluster(cpus=2)) as large, closing(InlineCluster(cpus=1)) as small:
        job = make_service(jobs, artifacts, tmp_path, large).submit(request(wide(2)))
        service = make_service(jobs, artifacts, tmp_path, small)
        behind = service.submit(request())
        said = explain(service, job)
        assert said.rule.name == "beyond_capacity"
        assert "asks for 2 core(s), and the cluster has 1 core(s)" in said.headline
        assert said.standing is not None
        assert said.standing.starts_at is None
        waiting = explain(service, behind)
        assert waiting.rule.name == "priority_order"
        assert waiting.standing is not None
        assert job.id in waiting.standing.basis
        service.training.cancel(job.id)
        assert service.run_to_end(behind).state is JobState.SUCCEEDED


def test_a_wish_of_a_queued_job_is_about_to_be_granted(service: Service) -> None:
    job = service.submit(request())
    service.training.cancel(job.id)
    said = explain(service, job)
    assert said.rule.name == "wish"
    assert "cancelled" in said.headline
    service.watcher.round()


def test_a_job_says_when_ray_does_not_answer(
    jobs: JobStore, artifacts: LocalStore, tmp_path: Path
) -> None:
    with closing(Fallen()) as cluster:
        service = make_service(jobs, artifacts, tmp_path, cluster)
        job = service.submit(request())
        cluster.is_down = True
        said = explain(service, job)
        assert said.rule.name == "cluster_down"
        assert "Ray's host process has ended" in said.headline
        assert said.standing is not None
        assert said.standing.starts_at is None
        assert "Ray does not answer" in said.standing.basis
        assert said.changes[0].action == "readyz"
        cluster.is_down = False
        assert explain(service, job).rule.name == "about_to_start"


def test_a_job_is_taken_in_while_ray_does_not_answer_if_it_ever_did(
    jobs: JobStore, artifacts: LocalStore, tmp_path: Path
) -> None:
    with closing(Fallen()) as cluster:
        cluster.is_down = True
        unseen = make_service(jobs, artifacts, tmp_path, cluster)
        with pytest.raises(NotReady, match="does not answer"):
            unseen.submit(request())
        cluster.is_down = False
        service = make_service(jobs, artifacts, tmp_path, cluster)
        cluster.is_down = True
        assert service.submit(request()).state is JobState.QUEUED
        wide = tiny_spec().model_copy(update={"resources": Resources(cpus_per_worker=99)})
        with pytest.raises(ExceedsCapacity):
            service.submit(request(wide))


def test_a_job_says_when_the_store_does_not_answer(service: Service, artifacts: LocalStore) -> None:
    job = service.submit(request())
    away = artifacts.root.rename(artifacts.root.with_name("away"))
    artifacts.root.write_text("no folder")
    said = explain(service, job)
    assert said.rule.name == "store_down"
    assert str(artifacts.root) not in said.headline
    artifacts.root.unlink()
    away.rename(artifacts.root)
    assert explain(service, job).rule.name == "about_to_start"


def test_a_job_says_when_nobody_watches(service: Service) -> None:
    job = service.submit(request())
    explaining = explaining_of(service)
    service.watcher.last_round_at -= 100
    said = explaining.explain(job.id)
    assert said.rule.name == "service_trouble"
    assert re.search(r"no round for 1\d\d s", said.headline)


def test_a_job_says_when_none_of_several_services_leads(service: Service) -> None:
    job = service.submit(request())
    leadership = Leadership(service.jobs, "one:1", 600)
    explaining = explaining_of(service, leadership)
    said = explaining.explain(job.id)
    assert said.rule.name == "no_leader"
    assert "no service leads" in said.headline
    leadership.look()
    assert explaining.explain(job.id).rule.name == "about_to_start"


def test_a_paused_job_says_from_where_it_would_go_on(service: Service, holder: Job) -> None:
    service.training.pause(holder.id)
    paused = service.run_until(holder, lambda now: now.state is JobState.PAUSED)
    assert paused.progress is not None
    said = explain(service, paused)
    assert said.rule.name == "wish"
    assert f"from step {paused.progress.step} " in said.headline
    assert [change.action for change in said.changes] == ["resume", "cancel"]
    assert abs(said.since - datetime.now(UTC)) < timedelta(seconds=30)
    assert said.since > holder.created_at
