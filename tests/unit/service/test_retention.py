import itertools
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from service.errors import JobNotFound
from service.feed import Feed
from service.jobs import Job, JobState, Retention
from service.jobstore import JobStore
from service.retention import Deletions, KeepingRules
from tests.contract.jobstore import making
from tests.contract.jobstore.test_retaining import ended, ended_ago, rows
from tests.factories import request
from tests.harness import Service
from workers.artifacts import LocalStore, attempt_prefix, outcome_key
from workers.errors import StoreAway, StoreError


def deletions(
    jobs: JobStore,
    artifacts: LocalStore,
    forget: Callable[[str], None] = lambda job_id: None,
    default: Retention | None = None,
) -> Deletions:
    return Deletions(jobs, artifacts, Feed(), KeepingRules(default or Retention()), forget)


def with_objects(jobs: JobStore, artifacts: LocalStore) -> Job:
    """An ended job with objects of every kind, more than go in one request."""
    job = ended(jobs)
    artifacts.put(f"{attempt_prefix(job.id, 1)}/events/00000000.jsonl", b"{}")
    artifacts.put(outcome_key(attempt_prefix(job.id, 1)), b"{}")
    prefix = attempt_prefix(job.id, 2)
    for number in range(250):
        artifacts.put(f"{prefix}/events/{number:08d}.jsonl", b"{}")
    for name in ("weights.safetensors", "manifest.json"):
        artifacts.put(f"{prefix}/checkpoints/00000005/{name}", b"x" * 100)
    artifacts.put(outcome_key(prefix), b"{}")
    (artifacts.root / prefix / ".incoming-half").write_bytes(b"half of it")
    return job


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_nothing_is_left_of_a_deleted_job(jobs: JobStore, artifacts: LocalStore) -> None:
    kept = with_objects(jobs, artifacts)
    before = rows(jobs), len(files(artifacts.root))
    gone = with_objects(jobs, artifacts)
    forgotten: list[str] = []
    work = deletions(jobs, artifacts, forgotten.append)
    work.delete(gone.id, gone.version)
    assert forgotten == [gone.id]
    assert work.news.is_set()
    assert len(list(work.remove())) > 3
    assert (rows(jobs), len(files(artifacts.root))) == before
    assert not (artifacts.root / "jobs" / gone.id).exists()
    assert jobs.get(kept.id) == kept
    assert work.reclaimed_bytes == 250 * 2 + 2 * 100 + 3 * 2
    assert list(work.remove()) == []
    with pytest.raises(JobNotFound):
        work.delete(gone.id, None)


def test_a_removal_that_is_cut_off_anywhere_is_taken_up_again(
    jobs: JobStore, artifacts: LocalStore
) -> None:
    with_objects(jobs, artifacts)
    before = rows(jobs), len(files(artifacts.root))
    for steps in itertools.count():
        gone = with_objects(jobs, artifacts)
        first = deletions(jobs, artifacts)
        first.delete(gone.id, None)
        done = list(itertools.islice(first.remove(), steps))
        prefix = attempt_prefix(gone.id, 1)
        left = [stored.key for stored in artifacts.list(f"jobs/{gone.id}")]
        # An attempt that was given up finds its outcome as long as anything is there.
        assert not left or outcome_key(prefix) in left
        # Rows go after the last object.
        assert not left or jobs.doomed(10) == [gone.id]
        list(deletions(jobs, artifacts).remove())
        assert (rows(jobs), len(files(artifacts.root))) == before
        if len(done) < steps:
            break
    assert steps > 5


class Denying(LocalStore):
    """Does not let some jobs' objects be deleted."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.error: StoreError = StoreError("denied")
        self.kept: set[str] = set()

    def delete(self, key: str) -> None:
        if any(f"/{job_id}/" in key for job_id in self.kept):
            raise self.error
        super().delete(key)


def test_what_the_store_denies_of_some_jobs_holds_up_no_other(
    jobs: JobStore, artifacts: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.retention.DOOMED_AT_ONCE", 1)
    store = Denying(artifacts.root)
    work = deletions(jobs, store)
    gone = [ended(jobs) for _ in range(4)]
    store.kept = {gone[0].id, gone[2].id}
    for job in gone:
        store.put(outcome_key(attempt_prefix(job.id, 1)), b"{}")
        work.delete(job.id, None)
    assert len(list(work.remove())) >= len(gone)  # there is a pause behind each
    assert set(jobs.doomed(10)) == store.kept
    assert str(work.denied) == f"{gone[0].id} cannot be removed: denied"
    store.error = StoreAway("away")
    with pytest.raises(StoreAway):  # then it is so for all
        list(work.remove())
    store.kept.clear()
    list(work.remove())
    assert (jobs.doomed(10), work.denied) == ([], None)


def test_what_has_expired_is_deleted_in_the_same_way(jobs: JobStore, artifacts: LocalStore) -> None:
    old, young = ended_ago(jobs, 1000), ended_ago(jobs, 10)
    work = deletions(jobs, artifacts, default=Retention(succeeded_s=100))
    work.delete_expired()
    with pytest.raises(JobNotFound):
        jobs.get(old.id)
    assert jobs.get(young.id) == young
    assert work.deleted == 1
    list(work.remove())
    assert jobs.custody(old.id) is None


def test_a_job_says_when_it_expires(jobs: JobStore) -> None:
    rules = KeepingRules(Retention(succeeded_s=100, failed_s=200))
    assert rules.expires_at(making.running(jobs)) is None
    succeeded, cancelled = ended(jobs), ended(jobs, JobState.CANCELLED)
    assert succeeded.ended_at is not None
    assert rules.expires_at(succeeded) == succeeded.ended_at + timedelta(seconds=100)
    assert rules.expires_at(cancelled) is None


def test_a_trained_job_is_deleted_while_another_trains(service: Service) -> None:
    jobs, artifacts = service.jobs, service.artifacts
    assert isinstance(artifacts, LocalStore)
    done = service.run_to_end(service.submit(request(retention={"failed_s": 60})))
    assert done.retention == Retention(failed_s=60)
    following = service.submit(request())
    service.watcher.round()
    work = deletions(jobs, artifacts)
    work.delete(done.id, None)
    for _ in work.remove():
        service.watcher.round()
    assert list(artifacts.list(f"jobs/{done.id}")) == []
    assert service.run_to_end(following).state is JobState.SUCCEEDED
