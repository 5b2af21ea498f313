"""What a sweep removes, and what it must never touch; over every artifact store."""

import contextlib
import secrets
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.jobs import Attempt, Job, JobState, Reason
from service.jobstore import JobStore
from service.sweep import Report, Sweep
from service.uploads import Condition, Upload
from tests.contract.jobstore import making, test_ledger
from tests.contract.test_artifacts import ENDPOINTS, unfinished_write
from tests.harness import make_datasets
from tests.s3_servers import BUCKET
from workers.artifacts import ArtifactStore, LocalStore, attempt_prefix, open_store, outcome_key
from workers.content import Facts, data_key, facts_key
from workers.data import describe
from workers.events import CheckpointRecord, CheckpointRemovedRecord, Record
from workers.spec import NamedDataset

HOUR = timedelta(hours=1)
USED, UNUSED, PINNED = (f"sha256:{digit * 64}" for digit in "123")


@pytest.fixture(params=["local", "moto", "seaweedfs", "limited"])
def store(request: pytest.FixtureRequest, tmp_path: Path, s3_credentials: None) -> ArtifactStore:
    if request.param == "local":
        return LocalStore(tmp_path / "artifacts")
    endpoint = ENDPOINTS[request.param](request)
    return open_store(f"s3://{BUCKET}/{secrets.token_hex(8)}/runs?endpoint={endpoint}")


@pytest.fixture
def local(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "artifacts")


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep finds what is unfinished in this machine's: also what a neighbour is at."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


def sweep_of(jobs: JobStore, store: ArtifactStore, folder: Path) -> Sweep:
    cache = folder / "cache"
    sweep = Sweep(jobs, store, make_datasets(jobs, store, cache), cache, grace_s=3600)
    sweep.claim()
    return sweep


def report(*, dry_run: bool = False) -> Report:
    return Report(1, dry_run, datetime.now(UTC))


def swept(sweep: Sweep, before: datetime, *, dry_run: bool = False) -> Report:
    found = report(dry_run=dry_run)
    for _ in sweep.steps_before(found, before):
        pass
    return found


def keys(store: ArtifactStore) -> set[str]:
    return {
        stored.key for prefix in ("jobs", "datasets", "probes") for stored in store.list(prefix)
    }


def at_work(jobs: JobStore) -> Job:
    job = making.queued(jobs)
    attempt = Attempt(job.id, 1, "executor", "session", making.NOON)
    return jobs.start_attempt(job, attempt, Reason.TRAINING, "Training.")


def put_checkpoint(store: ArtifactStore, job: Job, step: int) -> CheckpointRecord:
    prefix = f"{attempt_prefix(job.id, 1)}/checkpoints/{step:08d}"
    for name in ("weights.safetensors", "train_state.safetensors", "manifest.json"):
        store.put(f"{prefix}/{name}", b"0123456789")
    return making.checkpoint(step).model_copy(update={"prefix": prefix})


def put_job(jobs: JobStore, store: ArtifactStore, *, ends: bool) -> tuple[Job, set[str]]:
    """A job with what a crash may leave; and the keys of that."""
    job = at_work(jobs)
    prefix = attempt_prefix(job.id, 1)
    store.put(f"{prefix}/files/grids/1.png", b"known")
    records: list[Record] = [
        *(put_checkpoint(store, job, step) for step in (1, 2, 3)),
        CheckpointRemovedRecord(at=making.NOON, id="00000001", what="all"),
        CheckpointRemovedRecord(at=making.NOON, id="00000002", what="train_state"),
        making.artifact("grids/1.png", key=f"{prefix}/files/grids/1.png"),
    ]
    jobs.ingest(job.id, 1, 0, records)
    store.put(f"{prefix}/events/00000000.jsonl", b"{}")
    store.put(f"{prefix}/logs/00000000.jsonl", b"{}")
    kept = keys(store)
    put_checkpoint(store, job, 4)
    store.put(f"{prefix}/files/unknown.png", b"unknown")
    left = keys(store) - kept
    left |= {key for key in kept if f"{prefix}/checkpoints/00000001/" in key}
    left |= {f"{prefix}/checkpoints/00000002/train_state.safetensors"}
    if ends:
        store.put(outcome_key(prefix), b"{}")
        jobs.settle(jobs.get(job.id), JobState.FAILED, Reason.DIVERGED, "diverged")
    return job, left


def put_content(store: ArtifactStore, digest: str) -> set[str]:
    store.put(data_key(digest), b"0123456789")
    store.put(facts_key(digest), b"{}")
    return {data_key(digest), facts_key(digest)}


def facts(digest: str) -> Facts:
    return Facts(
        digest=digest, shape=(2,), count=5, dtype="float32", size_bytes=10, source_format="csv"
    )


def test_a_sweep_finds_what_nobody_needs_and_removes_no_more(
    jobs: JobStore, store: ArtifactStore, tmp_path: Path
) -> None:
    _, orphans = put_job(jobs, store, ends=True)
    live, _ = put_job(jobs, store, ends=False)
    deleted, _ = put_job(jobs, store, ends=True)
    jobs.delete(deleted.id)  # its objects are the removal's, not the sweep's
    for number in range(3):
        store.put(f"jobs/job-nobody/attempts/1/events/{number}.jsonl", b"{}")
        orphans.add(f"jobs/job-nobody/attempts/1/events/{number}.jsonl")
    for digest in (USED, PINNED):
        put_content(store, digest)
    orphans |= put_content(store, UNUSED)
    jobs.put_upload(Upload("ours", facts(USED), making.NOON), Condition())
    making.queued(jobs, of=making.spec(dataset={"name": "theirs", "digest": PINNED}))
    store.put("probes/0123456789abcdef/spreadtrain", b"spreadtrain")
    orphans.add("probes/0123456789abcdef/spreadtrain")
    trial = test_ledger.begun(jobs, test_ledger.running(jobs))
    for busy in (live.id, trial.job_id):
        unfinished_write(store, f"{attempt_prefix(busy, 1)}/files/slow.png")
    unfinished_write(store, f"{attempt_prefix('job-nobody', 1)}/files/cut.png")
    everything, future = keys(store), store.now() + HOUR
    sizes = sum(store.size(key) for key in orphans) + len(b"half of it")
    sweep = sweep_of(jobs, store, tmp_path)

    young = swept(sweep, store.now() - HOUR)
    assert (sum(young.counts.values()), young.findings) == (0, [])
    assert keys(store) == everything

    dry = swept(sweep, future, dry_run=True)
    counted = {"job": 3, "attempt": len(orphans) - 6, "data_set": 2, "probe": 1, "unfinished": 1}
    assert {kind: count for kind, count in dry.counts.items() if count} == counted
    assert sum(dry.sizes.values()) == sizes
    assert keys(store) == everything
    assert sweep.reclaimed_bytes == 0
    assert all(finding.why for finding in dry.findings)

    done = swept(sweep, future)
    assert (done.counts, done.sizes, done.findings) == (dry.counts, dry.sizes, dry.findings)
    assert keys(store) == everything - orphans
    assert sweep.reclaimed_bytes == sizes
    left = sorted(write.name for write in store.unfinished() if write.name.startswith("jobs/"))
    for name, busy in zip(left, sorted([live.id, trial.job_id]), strict=True):
        assert busy in name
    assert sum(swept(sweep, future).counts.values()) == 0


def test_a_sweep_sees_its_own_store_alone(
    jobs: JobStore, store: ArtifactStore, tmp_path: Path
) -> None:
    if isinstance(store, LocalStore):
        other: ArtifactStore = LocalStore(tmp_path / "other")
    else:
        other = open_store(store.uri.replace("/runs?", "/runs2?"))
    for each in (store, other):
        each.put("jobs/job-nobody/outcome.json", b"{}")
        unfinished_write(each, "jobs/job-nobody/half")
        put_content(each, UNUSED)
    found = swept(sweep_of(jobs, store, tmp_path), store.now() + HOUR)
    assert found.counts["job"] == found.counts["unfinished"] == 1
    assert keys(store) == set()
    assert len(keys(other)) == 3
    assert len([write for write in other.unfinished() if write.name.startswith("jobs/")]) == 1


def test_what_a_probe_has_left_behind_in_folders_goes(
    jobs: JobStore, local: LocalStore, tmp_path: Path
) -> None:
    for number in range(3):
        (local.root / "probes" / f"{number}").mkdir(parents=True)
    swept(sweep_of(jobs, local, tmp_path), local.now() - HOUR)
    assert len(list((local.root / "probes").iterdir())) == 3
    swept(sweep_of(jobs, local, tmp_path), local.now() + HOUR)
    assert not (local.root / "probes").exists()
    local.check()


def test_a_job_of_which_anything_is_young_is_left_alone(
    jobs: JobStore, local: LocalStore, tmp_path: Path
) -> None:
    local.put("jobs/job-new/parent/weights.safetensors", b"old")
    time.sleep(0.05)
    between = local.now()
    time.sleep(0.05)
    local.put("jobs/job-new/parent/manifest.json", b"{}")
    assert swept(sweep_of(jobs, local, tmp_path), between).counts["job"] == 0
    # A copy of an old file is young, also where it is a second name of the same file.
    local.put("jobs/job-old/weights.safetensors", b"old")
    time.sleep(0.05)
    between = local.now()
    time.sleep(0.05)
    with local.open_file("jobs/job-old/weights.safetensors") as path:
        local.put_file("jobs/job-fork/parent/weights.safetensors", path)
    copied = "jobs/job-fork/parent/weights.safetensors"
    assert next(iter(local.list("jobs/job-fork"))).modified_at > between
    swept(sweep_of(jobs, local, tmp_path), between)
    assert local.exists(copied)


def test_a_job_that_is_stored_while_it_is_looked_at_keeps_everything(
    jobs: JobStore, local: LocalStore, tmp_path: Path
) -> None:
    for number in range(250):
        local.put(f"jobs/job-late/parent/{number:04d}", b"x")
    found = report()
    steps = sweep_of(jobs, local, tmp_path).steps_before(found, local.now() + HOUR)
    next(steps)  # no row knows the job when its objects are first seen
    assert jobs.custody("job-late") is None
    jobs.add(making.job(id="job-late"))
    for _ in steps:
        pass
    assert found.counts["job"] == 0
    assert len(keys(local)) == 250


def test_an_object_that_appears_during_a_removal_stays(
    jobs: JobStore, local: LocalStore, tmp_path: Path
) -> None:
    for number in range(450):
        local.put(f"jobs/job-nobody/a/{number:04d}", b"x")
    local.put("jobs/job-nobody/b/old", b"x")
    time.sleep(0.05)
    before = local.now()
    time.sleep(0.05)
    steps = sweep_of(jobs, local, tmp_path).steps_before(report(), before)
    for _ in steps:
        if len(keys(local)) < 451:
            break
    local.put("jobs/job-nobody/b/new", b"x")
    for _ in steps:
        pass
    assert keys(local) == {"jobs/job-nobody/b/new"}


def test_a_content_that_gets_a_name_before_it_is_removed_stays(
    jobs: JobStore, local: LocalStore, tmp_path: Path
) -> None:
    datasets = make_datasets(jobs, local, tmp_path / "cache")
    put_content(local, USED)
    put_content(local, UNUSED)
    jobs.put_upload(Upload("ours", facts(USED), making.NOON), Condition())
    assert not datasets.discard_unused(USED)
    assert datasets.discard_unused(UNUSED)
    assert keys(local) == {data_key(USED), facts_key(USED)}


def test_the_cache_loses_what_nobody_needs(
    jobs: JobStore, local: LocalStore, tmp_path: Path
) -> None:
    sweep = sweep_of(jobs, local, tmp_path)
    cache = tmp_path / "cache"
    digits = {name: digest.removeprefix("sha256:") for name, digest in (("a", USED), ("b", UNUSED))}
    jobs.put_upload(Upload("ours", facts(USED), making.NOON), Condition())
    digest = describe(NamedDataset(name="digits"), cache).digest
    built_in = digest.removeprefix("sha256:")
    for name, pinned in (("ours", USED), ("digits", digest)):
        ref = {"name": name, "digest": pinned, "split_seed": 7}
        making.queued(jobs, of=making.spec(dataset=ref))
    ref = {"name": "digits", "digest": digest, "split_seed": 8}
    ended = making.queued(jobs, of=making.spec(dataset=ref))
    jobs.settle(ended, JobState.CANCELLED, Reason.CANCELLED, "cancelled")
    for name in ("arrays", "uploads", "celeba"):
        (cache / name).mkdir(parents=True)
    kept = [
        cache / "uploads" / f"{digits['a']}.npy",
        cache / "arrays" / f"{digits['a']}-7.npy",
        cache / "arrays" / f"{built_in}.npy",
        cache / "arrays" / f"{built_in}-7.npy",
        cache / "celeba" / "a-users-file.zip",
        cache / "arrays" / "something-else.npy",
    ]
    gone = [
        cache / "uploads" / f"{digits['b']}.npy",
        cache / "arrays" / f"{digits['b']}-7.npy",
        cache / "arrays" / f"{digits['a']}-8.npy",
        cache / "arrays" / f"{built_in}-8.npy",
        cache / "celeba" / ".incoming-cut-off",
    ]
    for path in (*kept, *gone):
        path.write_bytes(b"0123456789")
    assert swept(sweep, local.now() - HOUR).counts["cache"] == 0
    time.sleep(0.05)
    found = report()
    sweep = Sweep(jobs, local, make_datasets(jobs, local, cache), cache, grace_s=0)
    for _ in sweep.steps(found):
        pass
    assert (found.counts["cache"], found.sizes["cache"]) == (5, 50)
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in gone)


@contextlib.contextmanager
def peak_bytes() -> Iterator[list[int]]:
    """Fills in the most memory that Python has held within the block."""
    peak: list[int] = []
    tracemalloc.start()
    try:
        yield peak
    finally:
        peak.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()


def test_a_large_store_is_listed_in_little_memory(local: LocalStore) -> None:
    for number in range(60):
        folder = local.root / "jobs" / f"job-{number:04d}" / "attempts" / "1" / "events"
        folder.mkdir(parents=True)
        for chunk in range(100):
            (folder / f"{chunk:08d}.jsonl").touch()
    with peak_bytes() as peak:
        count = sum(1 for _ in local.list("jobs"))
    assert count == 6000
    with peak_bytes() as whole:
        assert len(list(local.list("jobs"))) == 6000
    assert peak[0] < whole[0] / 5
