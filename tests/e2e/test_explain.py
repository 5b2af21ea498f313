"""A killed attempt is explained by what the kernel and Ray said of it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from api.client import JobHandle
from service.cluster.memory import oom_kills
from tests.e2e.conftest import Start
from tests.e2e.processes import pid_of_attempt, spec, wait_for
from tests.e2e.test_lifecycle import begun
from tests.other_ray import OtherRay
from tests.unit.service.test_exits import NAMED


def test_a_job_whose_process_was_killed_names_the_signal_and_how_it_went_on(start: Start) -> None:
    before = oom_kills() or 0
    service = start()
    job = service.client.submit(spec(10_000), limits={"max_attempts": 2})
    wait_for(job, begun, "two checkpoints")
    waits = service.client.submit(spec(1))
    wait_for(waits, lambda now: bool(now.body.queue and now.body.queue.starts_at), "an estimate")
    waiting = waits.explain()
    assert waiting.rule.name == "capacity"
    assert waiting.resources is not None
    assert [held.job for held in waiting.resources.held] == [job.id]
    waits.cancel()
    os.kill(pid_of_attempt(job), signal.SIGKILL)
    wait_for(
        job,
        lambda now: len(now.body.attempts) == 2 and now.body.reason == "training",
        "a second attempt",
    )
    os.kill(pid_of_attempt(job), signal.SIGKILL)
    wait_for(job, lambda now: now.state == "failed", "the job to fail")
    said = job.explain()
    assert said.rule.name == "max_attempts"
    assert [link.reason for link in said.attempts] == ["worker_lost", "worker_lost"]
    for link in said.attempts:
        assert link.exit is not None
        assert link.exit.signal == NAMED
        assert link.exit.detail is not None
        assert "Ray: SYSTEM_ERROR" in link.exit.detail
        # The count is the whole machine's, where others may have lost processes too.
        assert 0 <= (link.memory.oom_kills or 0) <= (oom_kills() or 0) - before
    first, second = said.attempts
    assert (first.memory.peak_rss_bytes or 0) > 50 << 20
    assert f"Attempt 2 went on from step {second.resumed_from_step}" in first.followed_by
    assert f"limits.max_attempts ({2})" in said.rule.sentence


OTHERS = """\
import ray, sys
ray.init(address="auto", log_to_driver=False, configure_logging=False)
@ray.remote(num_cpus=1)
class Holds:
    def ready(self):
        return True
held = [Holds.remote() for _ in range(2)]
ray.get([each.ready.remote() for each in held])
print("holds", flush=True)
sys.stdin.readline()
ray.kill(held.pop())
sys.stdin.read()
"""


@pytest.fixture
def three_cores() -> Iterator[dict[str, str]]:
    """The settings that join a cluster of one node."""
    ray = OtherRay(3)
    yield ray.settings
    ray.close()


def test_a_job_on_a_joined_cluster_that_others_fill_says_so_and_runs_when_they_make_room(
    start: Start,
    three_cores: dict[str, str],
) -> None:
    others = subprocess.Popen(
        [sys.executable, "-c", OTHERS],
        env={**os.environ, **three_cores},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with others:
        assert others.stdout is not None
        assert others.stdin is not None
        assert others.stdout.readline() == "holds\n"
        service = start(**three_cores)
        assert service.client.submit(spec(1)).wait(240).state == "succeeded"  # it leaves a spare
        job = service.client.submit(spec(1, resources={"cpus_per_worker": 2}))
        # The spare's core comes back when Ray has seen its process end: until then it is "others'".
        wait_for(job, _others_hold_two, "its reason")
        others.stdin.write("one core less\n")
        others.stdin.flush()
        assert job.wait(240).state == "succeeded"  # on that core and the one that the spare had
        others.stdin.close()


def _others_hold_two(job: JobHandle) -> bool:
    said = job.explain()
    return (
        said.rule.name == "cluster_placement"
        and said.resources is not None
        and said.resources.others is not None
        and said.resources.others.cpus == 2
        and "Others hold 2 core(s)" in said.headline
    )
