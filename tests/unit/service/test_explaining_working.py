"""What a running job says of itself: from its records, the cluster and the kernel."""

import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.cluster.inline import InlineCluster
from service.explaining import Explanation, working
from service.jobs import Attempt, Job, JobState, Reason
from service.jobstore import JobStore
from tests.factories import long_spec, request, tiny_spec
from tests.harness import Service, make_service
from tests.unit.service.explaining_of import Crowded, Slow, explaining_of
from workers.artifacts import LocalStore
from workers.events import (
    FirstStepRecord,
    MetricsRecord,
    ProgressRecord,
    Record,
    StartedRecord,
)

HOST = socket.gethostname()


def explain(service: Service, job: Job) -> Explanation:
    return explaining_of(service).explain(job.id)


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def running(service: Service, *paces: float, heard_s: float = 0.0, host: str = HOST) -> Job:
    """A job whose attempt has recorded these paces, and its last word so long ago."""
    job = service.submit(request(tiny_spec(epochs=100)))
    attempt = Attempt(job.id, 1, "executor-1", service.cluster.session, ago(120))
    job = service.jobs.start_attempt(job, attempt, Reason.STARTING, "starting")
    started = StartedRecord(at=ago(110), pid=1, host=host, total_steps=400, steps_per_epoch=4)
    metrics = [
        MetricsRecord(at=ago(90), step=step, epoch=step / 4, values={"data_per_s": pace})
        for step, pace in enumerate(paces, 2)
    ]
    last = ProgressRecord(at=ago(heard_s), step=201, epoch=50.25)
    records: list[Record] = [started, FirstStepRecord(at=ago(100), step=1), *metrics, last]
    service.jobs.ingest(job.id, 1, 0, records)
    return service.jobs.explain(service.jobs.get(job.id), Reason.TRAINING, "Training.")


def test_a_job_that_trains_says_how_far_it_is_and_what_it_holds(service: Service) -> None:
    said = explain(service, running(service, 1000, 1010, 990, 1000))
    assert said.rule.name == "training"
    # 200 steps in 100 s, and 199 are left.
    assert re.search(r"step 201 of 400, about (9\d|100) s left", said.headline)
    assert "usual pace" in said.headline
    assert said.claims is not None
    (held,) = said.claims.holders
    assert held.left_s == pytest.approx(99.5, abs=3)
    assert said.changes == ()


def test_a_job_that_becomes_slow_is_told_against_its_own_past(service: Service) -> None:
    said = explain(service, running(service, 1000, 1010, 990, 400))
    assert said.rule.name == "slow"
    assert "400 data/s lately, 1000 before" in said.headline
    assert said.speed is not None
    assert (said.speed.now, said.speed.before) == (400, 1000)
    assert HOST in said.changes[0].sentence


def test_a_slow_job_is_told_against_its_like_on_the_same_machine(service: Service) -> None:
    for _ in range(2):
        other = running(service, 1000, 1000, 1000)
        service.jobs.settle(other, JobState.SUCCEEDED, Reason.COMPLETED, "done")
    elsewhere = running(service, 9000, 9000, 9000, host="another")
    service.jobs.settle(elsewhere, JobState.SUCCEEDED, Reason.COMPLETED, "done")
    said = explain(service, running(service, 300, 310, 290, 300))
    assert said.rule.name == "slow"
    assert f"300 data/s, and 1000 had the last 2 job(s) like it on {HOST}" in said.headline
    usual = explain(service, running(service, 700, 700, 700, 700))
    assert usual.rule.name == "training"


def test_a_silent_process_is_told_by_its_last_word(service: Service) -> None:
    said = explain(service, running(service, 1000, heard_s=40))
    assert said.rule.name == "silent"
    assert re.search(r"has said nothing for 4\d s", said.headline)
    assert "step 201" in said.headline
    assert said.claims is not None
    assert said.claims.holders[0].left_s is None


def test_a_silent_process_is_laid_to_the_store_while_that_is_away(
    service: Service, artifacts: LocalStore
) -> None:
    job = running(service, 1000, heard_s=40)
    artifacts.root.mkdir(exist_ok=True)
    shutil.rmtree(artifacts.root)
    artifacts.root.write_text("no folder")
    assert explain(service, job).rule.name == "store_down"


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "100"]) as process:
        yield process
        process.kill()


def test_a_process_that_was_stopped_is_seen_in_the_kernels_table(
    service: Service, process: subprocess.Popen[bytes]
) -> None:
    job = running(service, 1000)
    service.jobs.note_process(job.id, 1, process.pid, HOST)
    assert explain(service, job).rule.name == "training"
    process.send_signal(signal.SIGSTOP)
    while Path(f"/proc/{process.pid}/stat").read_text().split()[2] != "T":
        pass
    said = explain(service, job)
    assert said.rule.name == "process_stopped"
    assert f"kill -CONT {process.pid}" in said.changes[0].sentence
    process.send_signal(signal.SIGCONT)
    while Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "T":
        pass
    assert explain(service, job).rule.name == "training"


def test_a_process_on_another_machine_is_not_looked_for_here(
    service: Service, process: subprocess.Popen[bytes]
) -> None:
    process.send_signal(signal.SIGSTOP)
    job = running(service, 1000)
    service.jobs.note_process(job.id, 1, process.pid, "another machine")
    assert explain(service, job).rule.name == "training"


@pytest.mark.parametrize(("wish", "verbs"), [("cancel", []), ("pause", ["resume"])])
def test_a_wish_is_being_carried_out(service: Service, wish: str, verbs: list[str]) -> None:
    job = running(service, 1000)
    (service.training.cancel if wish == "cancel" else service.training.pause)(job.id)
    said = explain(service, job)
    assert said.rule.name == "wish"
    assert [change.action for change in said.changes] == verbs
    assert said.claims is not None
    assert said.claims.holders[0].is_ending
    waiting = explain(service, service.submit(request()))
    assert waiting.rule.name == "capacity"
    assert f"{job.id} holds 1 core(s) (is about to end)" in waiting.headline
    assert waiting.standing is not None
    assert waiting.standing.starts_at is None
    assert f"{job.id} is about to end" in waiting.standing.basis


def test_a_start_that_takes_long_is_told_beside_what_is_usual(
    jobs: JobStore, artifacts: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(InlineCluster()) as quick, closing(Slow()) as slow:
        before = make_service(jobs, artifacts, tmp_path, quick)
        before.run_to_end(before.submit(request()))
        service = make_service(jobs, artifacts, tmp_path, slow)
        job = service.submit(request())
        service.watcher.round()
        said = explain(service, job)
        assert said.rule.name == "starting"
        assert "its process is being started" in said.headline
        assert "(median of 1 attempt(s))" in said.headline
        monkeypatch.setattr(working, "SLOW_START_S", 0.0)
        monkeypatch.setattr(working, "SLOW_START", 0.0)
        late = explain(service, job)
        assert late.rule.name == "starting_slowly"
        assert [change.action for change in late.changes] == ["logs", "pause", "resume"]


def test_the_phases_of_a_start_are_told_apart(service: Service) -> None:
    job = service.submit(request(long_spec()))
    attempt = Attempt(job.id, 1, "executor-1", service.cluster.session, ago(1))
    job = service.jobs.start_attempt(job, attempt, Reason.STARTING, "starting")
    service.jobs.note_process(job.id, 1, 1, HOST)
    assert f"process 1 on {HOST} loads data and model" in explain(service, job).headline
    started = StartedRecord(at=ago(0.5), pid=1, host=HOST, total_steps=400, steps_per_epoch=4)
    service.jobs.ingest(job.id, 1, 0, [started])
    assert "its first step is being computed" in explain(service, job).headline


def test_an_attempt_that_ray_finds_no_room_for_says_that_others_hold_it(
    jobs: JobStore, artifacts: LocalStore, tmp_path: Path
) -> None:
    with closing(Crowded()) as cluster:
        service = make_service(jobs, artifacts, tmp_path, cluster)
        job = service.submit(request())
        service.watcher.round()
        said = explain(service, job)
        assert said.rule.name == "cluster_placement"
        assert "Others hold 1 core(s) and 0 GPU(s) of it; 0 core(s)" in said.headline
        assert said.claims is not None
        assert said.claims.others is not None
        assert (said.claims.others.cpus, said.claims.free_cpus) == (1.0, 0.0)
        assert [change.action for change in said.changes] == ["none", "pause", "cancel"]
