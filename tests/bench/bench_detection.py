"""How soon a raylet that was killed or stopped is missed: by Ray's defaults, and by the service.

Ray: a second raylet beside a head node, until the cluster's own list of nodes says that it is dead.
The service: the raylet of its own Ray under a job, until the attempt has ended, and until the next
one takes a step.
"""

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from api.bodies import AttemptBody
from api.client import JobHandle
from tests.e2e.processes import ServiceProcess, spec, wait_for
from tests.other_ray import OtherRay, oldest

REPEATS = 3
PATIENCE_S = 180.0
SETTLED_S = 10.0  # the first health checks are over by then
_WATCHER = """
import sys, time, ray
ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
while True:
    print("alive", sum(node["Alive"] for node in ray.nodes()), flush=True)
    time.sleep(0.1)
"""


def of_ray(number: int) -> float:
    """Seconds until Ray says that a second node is dead whose raylet got this signal."""
    head = OtherRay(1)
    environment = {**os.environ, **head.settings}
    driver = subprocess.Popen(
        [sys.executable, "-u", "-c", _WATCHER, head.settings["RAY_ADDRESS"]],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    before = head.pids()
    second = subprocess.Popen(
        [
            *(str(Path(sys.executable).parent / "ray"), "start", "--block", "--num-cpus=1"),
            *(f"--address={head.settings['RAY_ADDRESS']}", "--object-store-memory=83886080"),
        ],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for_nodes(driver, 2)
        time.sleep(SETTLED_S)
        raylet = oldest("raylet", head.pids() - before)
        assert raylet is not None
        os.kill(raylet, number)
        began = time.monotonic()
        _wait_for_nodes(driver, 1)
        return time.monotonic() - began
    finally:
        driver.kill()
        driver.communicate()
        head.close()
        second.kill()
        second.wait()


def _wait_for_nodes(driver: "subprocess.Popen[bytes]", count: int) -> None:
    assert driver.stdout is not None
    give_up_at = time.monotonic() + PATIENCE_S
    # Ray says other things on the same stream.
    while driver.stdout.readline().split() != [b"alive", str(count).encode()]:
        assert time.monotonic() < give_up_at, f"there never were {count} nodes"


def of_the_service(number: int) -> tuple[float, float]:
    """Seconds until the attempt has ended under which the raylet got this signal, and until the
    next one takes its first step."""
    folder = Path(tempfile.mkdtemp(prefix="st-detection-"))
    service = ServiceProcess(folder / "data", SPREADTRAIN_CPUS="1")
    try:
        job = service.client.submit(spec(100_000))
        wait_for(job, lambda job: len(job.checkpoints()) >= 2, "two checkpoints")
        raylet = oldest("raylet", service.census())
        assert raylet is not None
        os.kill(raylet, number)
        began = time.monotonic()
        _until(lambda: _attempt(job, 0).ended_at is not None)
        missed_s = time.monotonic() - began
        _until(lambda: len(job.body.attempts) > 1 and _attempt(job, 1).first_step_at is not None)
        return missed_s, time.monotonic() - began
    finally:
        service.end()
        shutil.rmtree(folder, ignore_errors=True)


def _attempt(job: JobHandle, index: int) -> AttemptBody:
    return job.refresh().body.attempts[index]


def _until(look: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def main() -> None:
    """Print the seconds."""
    print(f"{'raylet':<10}{'missed by':<14}{'gone':>18}{'next step':>18}   (median, most)")
    for word, number in (("killed", signal.SIGKILL), ("stopped", signal.SIGSTOP)):
        ray = [of_ray(number) for _ in range(REPEATS)]
        print(f"{word:<10}{'Ray':<14}{_told(ray):>18}", flush=True)
        ours = [of_the_service(number) for _ in range(REPEATS)]
        told = "".join(f"{_told(seconds):>18}" for seconds in zip(*ours, strict=True))
        print(f"{word:<10}{'the service':<14}{told}", flush=True)


def _told(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.1f} s, {max(seconds):.1f} s"


if __name__ == "__main__":
    main()
