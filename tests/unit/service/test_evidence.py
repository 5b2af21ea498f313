"""What is seen of the end of a process, and what follows for its attempt."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import evidence
from service.cluster.base import Sighting
from service.cluster.inline import InlineCluster
from service.evidence import Evidence, is_for_memory
from service.jobs import Reason
from service.jobstore import JobStore
from tests.factories import long_spec, request
from tests.harness import make_service
from tests.unit.service.test_exits import IS_TOLD
from workers.artifacts import LocalStore
from workers.events import Exit

GONE = Sighting("gone")


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The kernel's count: its last entry."""
    counts = [7]
    monkeypatch.setattr(evidence, "oom_kills", lambda: counts[-1])
    return counts


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as started:
        yield started
        started.kill()


def end(process: subprocess.Popen[bytes], by: int) -> None:
    os.kill(process.pid, by)
    process.wait()


def test_what_the_kernel_ended_before_is_no_evidence(
    kills: list[int], process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "DYING_S", 0.0)
    seen = Evidence(is_here=True)
    kills.append(8)  # another process, hours before
    for _ in range(2):
        seen.see(Sighting("running", pid=process.pid))
    end(process, signal.SIGKILL)
    ending = seen.of(GONE)
    assert ending.oom_kills == 0
    assert not is_for_memory(ending)
    seen.close()


def test_what_the_kernel_ended_with_the_process_is_evidence_however_late_one_looks(
    kills: list[int], process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "DYING_S", 0.0)
    seen = Evidence(is_here=True)
    sighting = Sighting("running", pid=process.pid)
    seen.see(sighting)
    end(process, signal.SIGKILL)
    kills.append(8)
    for _ in range(3):
        seen.see(sighting)  # the cluster has not noticed yet
    ending = seen.of(GONE)
    assert ending.oom_kills == 1
    assert is_for_memory(ending)
    seen.close()


def test_a_count_that_rises_while_the_process_still_dies_is_evidence(
    kills: list[int], process: subprocess.Popen[bytes]
) -> None:
    seen = Evidence(is_here=True)
    kills.append(8)
    seen.see(Sighting("running", pid=process.pid))
    end(process, signal.SIGKILL)
    assert is_for_memory(seen.of(GONE))
    seen.close()


def test_a_crash_beside_a_kill_for_memory_is_a_crash(
    kills: list[int], process: subprocess.Popen[bytes]
) -> None:
    seen = Evidence(is_here=True)
    seen.see(Sighting("running", pid=process.pid))
    end(process, signal.SIGSEGV)
    kills.append(8)
    ending = seen.of(GONE)
    assert ending.oom_kills == 1
    assert ending.signal == ("SIGSEGV" if IS_TOLD else None)
    assert is_for_memory(ending) is not IS_TOLD  # an older kernel does not tell them apart
    seen.close()


@pytest.mark.parametrize(
    ("ending", "is_so"),
    [
        (Exit(oom_kills=1), True),
        (Exit(oom_kills=1, signal="SIGKILL"), True),
        (Exit(oom_kills=1, signal="SIGSEGV"), False),
        (Exit(oom_kills=1, code=1), False),
        (Exit(oom_kills=1, code=0), False),
        (Exit(oom_kills=0, signal="SIGKILL"), False),
        (Exit(signal="SIGKILL"), False),
    ],
)
def test_only_a_counted_kill_is_one_for_memory(ending: Exit, is_so: bool) -> None:
    assert is_for_memory(ending) is is_so


class Vanishing(InlineCluster):
    """Its executors are gone without a word when they are told to be."""

    has_vanished = False

    def look(self, executor_id: str) -> Sighting:
        return GONE if self.has_vanished else super().look(executor_id)


@pytest.mark.parametrize(
    ("is_counted_late", "reason"), [(False, Reason.WORKER_LOST), (True, Reason.OUT_OF_MEMORY)]
)
def test_an_attempt_is_lost_for_memory_only_if_the_kernel_ended_something_then(
    is_counted_late: bool,
    reason: Reason,
    kills: list[int],
    jobs: JobStore,
    artifacts: LocalStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evidence, "DYING_S", 0.0)
    cluster = Vanishing()
    service = make_service(jobs, artifacts, tmp_path, cluster)
    job = service.submit(request(long_spec(), limits={"max_attempts": 1}))
    service.run_until(job, lambda now: now.reason is Reason.TRAINING)
    kills.append(8)
    if not is_counted_late:
        for _ in range(2):
            service.watcher.round()
    cluster.has_vanished = True
    ended = service.run_to_end(job)
    assert ended.reason is reason, (ended.message, jobs.attempts(job.id)[-1].exit)
    cluster.close()
