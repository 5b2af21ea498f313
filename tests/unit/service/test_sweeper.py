import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.errors import JobNotFound, SweepRunning
from service.feed import Feed
from service.jobs import Retention
from service.jobstore import JobStore
from service.retention import Deletions, KeepingRules
from service.sweep import FINDINGS_MAX, Sweep
from service.sweeper import Sweeper
from tests.contract.jobstore.test_retaining import ended, ended_ago
from tests.harness import make_datasets
from tests.unit.service.test_retention import Denying, deletions, with_objects
from workers.artifacts import INSTALLATION_KEY, LocalStore

PATIENCE_S = 30.0


@pytest.fixture(autouse=True)
def own_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep without grace would find, and remove, what tests beside this one are writing."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@contextlib.contextmanager
def at_work(
    jobs: JobStore,
    artifacts: LocalStore,
    work: Deletions | None = None,
    interval_s: float = 0.0,
    grace_s: float = 0.0,
) -> Iterator[tuple[Sweeper, Deletions]]:
    cache = artifacts.root.parent / "cache"
    work = work or deletions(jobs, artifacts)
    sweep = Sweep(jobs, artifacts, make_datasets(jobs, artifacts, cache), cache, grace_s)
    sweeper = Sweeper(work, sweep, interval_s)
    sweeper.start()
    try:
        yield sweeper, work
    finally:
        sweeper.stop()
        assert not sweeper.is_alive


def until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def put_orphans(artifacts: LocalStore, count: int) -> None:
    for number in range(count):
        artifacts.put(f"jobs/job-{number}/outcome.json", b"{}")
    time.sleep(0.05)


def test_a_deleted_job_is_removed_soon(jobs: JobStore, artifacts: LocalStore) -> None:
    job = with_objects(jobs, artifacts)
    with at_work(jobs, artifacts) as (sweeper, work):
        work.delete(job.id, None)
        until(lambda: jobs.custody(job.id) is None)
        assert list(artifacts.list("jobs")) == []
        assert sweeper.reclaimed_bytes > 0
        assert sweeper.deleted_jobs == 1


def test_what_was_cut_off_goes_on_at_the_next_start(jobs: JobStore, artifacts: LocalStore) -> None:
    job = with_objects(jobs, artifacts)
    work = deletions(jobs, artifacts)
    work.delete(job.id, None)
    next(work.remove())
    with at_work(jobs, artifacts):
        until(lambda: jobs.custody(job.id) is None)


def test_jobs_expire_by_themselves(jobs: JobStore, artifacts: LocalStore) -> None:
    old, young = ended_ago(jobs, 1000), ended(jobs)
    work = deletions(jobs, artifacts, default=Retention(succeeded_s=100))
    with at_work(jobs, artifacts, work):
        until(lambda: jobs.custody(old.id) is None)
        with pytest.raises(JobNotFound):
            jobs.get(old.id)
        assert jobs.get(young.id) == young


def test_a_sweep_is_done_when_it_is_asked_for(jobs: JobStore, artifacts: LocalStore) -> None:
    put_orphans(artifacts, FINDINGS_MAX + 20)
    with at_work(jobs, artifacts) as (sweeper, _):
        assert sweeper.last() is None
        dry = sweeper.request(dry_run=True)
        until(lambda: dry.state != "running")
        assert (dry.number, dry.state, dry.error) == (1, "done", None)
        assert dry.counts["job"] == FINDINGS_MAX + 20
        assert len(dry.findings) == FINDINGS_MAX
        assert len(list(artifacts.list("jobs"))) == FINDINGS_MAX + 20
        wet = sweeper.request(dry_run=False)
        until(lambda: wet.state != "running")
        assert (wet.number, wet.counts) == (2, dry.counts)
        assert list(artifacts.list("jobs")) == []
        assert sweeper.last() is wet


def test_two_sweeps_are_never_under_way(jobs: JobStore, artifacts: LocalStore) -> None:
    cache = artifacts.root.parent / "cache"
    sweep = Sweep(jobs, artifacts, make_datasets(jobs, artifacts, cache), cache, 0)
    sweeper = Sweeper(deletions(jobs, artifacts), sweep, 0)  # not started: it stays under way
    first = sweeper.request(dry_run=True)
    assert sweeper.request(dry_run=True) is first
    with pytest.raises(SweepRunning):
        sweeper.request(dry_run=False)


def test_sweeps_come_by_themselves_where_the_settings_say_so(
    jobs: JobStore, artifacts: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.sweeper.EXPIRY_INTERVAL_S", 0.02)
    put_orphans(artifacts, 1)
    with at_work(jobs, artifacts) as (sweeper, _):
        time.sleep(0.2)
        assert sweeper.last() is None
    with at_work(jobs, artifacts, interval_s=0.05) as (sweeper, _):
        until(lambda: list(artifacts.list("jobs")) == [])
        last = sweeper.last()
        assert last is not None
        assert not last.dry_run


def test_a_dry_run_that_is_asked_for_as_a_sweep_falls_due_comes_first(
    jobs: JobStore, artifacts: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.sweeper.EXPIRY_INTERVAL_S", 0.02)
    cache = artifacts.root.parent / "cache"
    sweep = Sweep(jobs, artifacts, make_datasets(jobs, artifacts, cache), cache, 0)
    sweeper = Sweeper(deletions(jobs, artifacts), sweep, interval_s=1e-9)
    dry = sweeper.request(dry_run=True)
    sweeper.start()
    try:
        until(lambda: dry.state == "done")
        until(lambda: sweeper.last() is not dry)
        assert sweeper.is_alive
    finally:
        sweeper.stop()


def test_what_cannot_be_removed_is_said_and_holds_up_no_sweep(
    jobs: JobStore, artifacts: LocalStore
) -> None:
    store = Denying(artifacts.root)
    job = ended(jobs)
    store.kept = {job.id}
    store.put(f"jobs/{job.id}/attempts/1/outcome.json", b"{}")
    with at_work(jobs, store) as (sweeper, work):
        work.delete(job.id, None)
        done = sweeper.request(dry_run=False)
        until(lambda: done.state == "done")
        until(lambda: sweeper.trouble is not None)
        assert f"{job.id} cannot be removed: denied" == sweeper.trouble


def test_an_orphan_that_cannot_be_removed_holds_up_no_other(
    jobs: JobStore, artifacts: LocalStore
) -> None:
    store = Denying(artifacts.root)
    store.kept = {"job-a"}
    for name in ("job-a", "job-b"):
        store.put(f"jobs/{name}/attempts/1/outcome.json", b"{}")
    with at_work(jobs, store) as (sweeper, _):
        swept = sweeper.request(dry_run=False)
        until(lambda: swept.state != "running")
    assert (swept.state, swept.error) == ("failed", "denied")
    assert [stored.key for stored in store.list("jobs")] == ["jobs/job-a/attempts/1/outcome.json"]


class Defective(Deletions):
    """Has a defect that nobody has thought of, for a while."""

    is_defective = True

    def delete_expired(self) -> None:
        if self.is_defective:
            raise ZeroDivisionError
        super().delete_expired()


def test_a_defect_ends_a_pass_and_not_the_thread(
    jobs: JobStore, artifacts: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.sweeper.RETRY_S", 0.02)
    work = Defective(jobs, artifacts, Feed(), KeepingRules(Retention()), lambda job_id: None)
    job = with_objects(jobs, artifacts)
    with at_work(jobs, artifacts, work) as (sweeper, _):
        until(lambda: sweeper.trouble is not None)
        assert sweeper.is_alive
        work.is_defective = False
        work.delete(job.id, None)
        until(lambda: jobs.custody(job.id) is None)
        until(lambda: sweeper.trouble is None)


def test_a_store_that_is_away_is_waited_for(
    jobs: JobStore, artifacts: LocalStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("service.sweeper.RETRY_S", 0.02)
    job = with_objects(jobs, artifacts)
    artifacts.root.rename(tmp_path / "away")
    artifacts.root.write_text("in the way")
    with at_work(jobs, artifacts) as (sweeper, work):
        failed = sweeper.request(dry_run=True)
        until(lambda: failed.state != "running")
        assert failed.state == "failed"
        assert failed.error
        until(lambda: sweeper.trouble is not None)
        assert sweeper.is_alive
        artifacts.root.unlink()
        (tmp_path / "away").rename(artifacts.root)
        work.delete(job.id, None)
        until(lambda: jobs.custody(job.id) is None)
        until(lambda: sweeper.trouble is None)
    assert list(artifacts.list("jobs")) == []


def test_the_store_of_another_database_is_not_swept(jobs: JobStore, artifacts: LocalStore) -> None:
    with at_work(jobs, artifacts) as (sweeper, _):
        until(lambda: artifacts.exists(INSTALLATION_KEY))
    put_orphans(artifacts, 3)
    other = JobStore.open("sqlite://")
    try:
        with at_work(other, artifacts) as (sweeper, _):
            refused = sweeper.request(dry_run=False)
            until(lambda: refused.state != "running")
        assert refused.state == "failed"
        assert "another installation" in str(refused.error)
        assert refused.counts["job"] == 0
    finally:
        other.close()
    assert len(list(artifacts.list("jobs"))) == 3
    with at_work(jobs, artifacts) as (sweeper, _):
        done = sweeper.request(dry_run=False)
        until(lambda: done.state != "running")
    assert done.counts["job"] == 3
