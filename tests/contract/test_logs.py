"""What the processes of real attempts say, on a real Ray, is in the log of the right attempt."""

import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.cluster.ray_cluster import RayCluster
from service.jobs import Job, JobState
from service.jobstore import JobStore
from service.logs import Cursor, LogLine, Logs
from tests.factories import long_spec, request
from tests.harness import Service, make_service
from tests.own_ray import own_ray, tell
from workers.artifacts import LocalStore
from workers.logs import local_log_path

C_LEVEL = """
import ctypes, os, subprocess
print({word!r}, "from Python")
os.write(1, {word!r}.encode() + b" on 1\\n")
os.write(2, {word!r}.encode() + b" on 2\\n")
subprocess.run(["echo", {word!r}, "from a child"])
ctypes.CDLL(None).puts({word!r}.encode() + b" from C")
"""


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("orders")


@pytest.fixture(scope="module")
def cluster(orders: Path) -> Iterator[RayCluster]:
    with own_ray(orders, 1, "logs") as made:
        yield made


@pytest.fixture
def service(jobs: JobStore, artifacts: LocalStore, tmp_path: Path, cluster: RayCluster) -> Service:
    return make_service(jobs, artifacts, tmp_path, cluster, start_timeout_s=240)


def said(service: Service, job: Job, attempt: int | None = None) -> list[LogLine]:
    page = Logs(service.jobs, service.artifacts).read(job.id, attempt, Cursor(), 10_000)
    assert not page.has_more
    return [found.line for found in page.lines]


def has_begun(service: Service) -> Callable[[Job], bool]:
    def look(job: Job) -> bool:
        attempts = service.jobs.attempts(job.id)
        return bool(attempts) and attempts[-1].first_step_at is not None

    return look


def pid_of(service: Service, job: Job) -> int:
    pid = service.jobs.attempts(job.id)[-1].pid
    assert pid is not None
    return pid


def speak(service: Service, orders: Path, job: Job, word: str) -> None:
    """Let the attempt's process say a word in every way, and wait until it stands in the log."""
    tell(orders, pid_of(service, job), C_LEVEL.format(word=word))
    service.run_until(
        job,
        lambda now: any(line.text == f"{word} from C" for line in said(service, now)),
        timeout_s=240,
    )


def words(lines: list[LogLine], word: str) -> list[str]:
    return [line.text for line in lines if line.level == "output" and word in line.text]


def test_output_of_every_kind_is_its_own_attempts_also_on_a_reused_executor(
    service: Service, orders: Path
) -> None:
    found = {}
    pids = set()
    spec = long_spec(epochs=1_500).model_copy(update={"checkpoint_every_epochs": 500})
    for word in ("first", "second"):
        job = service.run_until(service.submit(request(spec)), has_begun(service), 240)
        pids.add(pid_of(service, job))
        speak(service, orders, job, word)
        # A clean end, after which the executor serves the next job.
        assert service.run_until(job, lambda now: now.state is JobState.SUCCEEDED, 240)
        found[word] = said(service, job)
    assert len(pids) == 1
    for word, other in (("first", "second"), ("second", "first")):
        assert words(found[word], word) == [
            f"{word} from Python",
            f"{word} on 1",
            f"{word} on 2",
            f"{word} from a child",
            f"{word} from C",
        ]
        assert words(found[word], other) == []
        assert found[word][-1].text.startswith("ended: completed")


def test_the_last_words_of_a_crash_stand_in_the_lost_attempts_log(
    service: Service, orders: Path, tmp_path: Path
) -> None:
    job = service.run_until(service.submit(request(long_spec())), has_begun(service), 240)
    tell(orders, pid_of(service, job), "import ctypes; ctypes.string_at(0)")
    service.run_until(job, lambda now: now.attempt == 2, 240)
    lost = [line.text for line in said(service, job, 1)]
    assert any("Fatal Python error: Segmentation fault" in text for text in lost)
    assert any("ctypes" in text and "string_at" in text for text in lost)  # where it happened
    assert not any("Fatal" in line.text for line in said(service, job, 2))
    assert not local_log_path(tmp_path, job.id, 1).exists()
    service.training.cancel(job.id)
    service.run_to_end(job)


def test_nothing_that_was_said_before_a_kill_is_lost_or_comes_twice(
    service: Service, orders: Path
) -> None:
    job = service.run_until(service.submit(request(long_spec())), has_begun(service), 240)
    pid, word = pid_of(service, job), secrets.token_hex(4)
    done = orders / f"{word}.done"
    tell(
        orders,
        pid,
        f"import os, pathlib\nfor n in range(5000): os.write(1, b'{word} %d\\n' % n)\n"
        f"pathlib.Path({str(done)!r}).touch()",
    )
    give_up_at = time.monotonic() + 30
    while not done.exists():
        assert time.monotonic() < give_up_at
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    service.run_until(job, lambda now: now.attempt == 2, 240)
    assert words(said(service, job, 1), word) == [f"{word} {n}" for n in range(5000)]
    service.training.cancel(job.id)
    service.run_to_end(job)
