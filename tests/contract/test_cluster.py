"""What every cluster must do; one body over all of them."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from service.cluster.base import Cluster, ClusterDown, ClusterUnavailable, Sighting
from service.cluster.inline import InlineCluster
from service.cluster.processes import is_running
from service.cluster.ray_cluster import RayCluster
from service.settings import ray_environment
from tests.e2e.processes import process_named, wait_until, wait_until_gone
from tests.factories import long_spec, tiny_spec
from tests.looking import looks
from workers.artifacts import LocalStore, chunk_key, outcome_key
from workers.events import Outcome
from workers.run import Run
from workers.spec import Resources, TrainSpec


@pytest.fixture(scope="module")
def one_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    ray_environment(joining=False)
    made = RayCluster("", tmp_path_factory.mktemp("ray"), 2, "contract")
    made.start()
    yield made
    made.close()


@pytest.fixture
def make_run(artifacts: LocalStore, tmp_path: Path) -> Callable[[TrainSpec], Run]:
    def make(spec: TrainSpec) -> Run:
        return Run(
            job_id="job-1", attempt=1, spec=spec, artifacts_uri=artifacts.uri, cache_dir=tmp_path
        )

    return make


def look_for(cluster: Cluster, executor: str, state: str, timeout_s: float = 240) -> Sighting:
    sighting = None
    for _ in looks(timeout_s):
        if (sighting := cluster.look(executor)).state == state:
            return sighting
    raise AssertionError(f"still {sighting}")


def outcome_of(artifacts: LocalStore, run: Run, timeout_s: float = 240) -> Outcome:
    give_up_at = time.monotonic() + timeout_s
    while not artifacts.exists(outcome_key(run.prefix)):
        assert time.monotonic() < give_up_at
        time.sleep(0.02)
    return Outcome.model_validate_json(artifacts.get(outcome_key(run.prefix)))


MakeRun = Callable[[TrainSpec], Run]


def test_an_attempt_runs_to_its_outcome(
    cluster: Cluster, artifacts: LocalStore, make_run: MakeRun
) -> None:
    run = make_run(tiny_spec())
    executor = cluster.reserve(run.spec.resources)
    cluster.launch(executor, run)
    assert outcome_of(artifacts, run).reason == "completed"
    cluster.release(executor, reusable=True)


def test_launching_twice_is_as_launching_once(
    cluster: Cluster, artifacts: LocalStore, make_run: MakeRun
) -> None:
    run = make_run(tiny_spec())
    executor = cluster.reserve(run.spec.resources)
    cluster.launch(executor, run)
    cluster.launch(executor, run)
    outcome = outcome_of(artifacts, run)
    assert outcome.chunks is not None
    assert not artifacts.exists(chunk_key(run.prefix, outcome.chunks))
    cluster.release(executor, reusable=True)


def test_a_stop_ends_an_attempt_with_its_reason(
    cluster: Cluster, artifacts: LocalStore, make_run: MakeRun
) -> None:
    run = make_run(long_spec())
    executor = cluster.reserve(run.spec.resources)
    cluster.launch(executor, run)
    look_for(cluster, executor, "running")
    cluster.request_stop(executor, "cancelled")
    assert outcome_of(artifacts, run).reason == "cancelled"
    cluster.release(executor, reusable=False)
    look_for(cluster, executor, "gone")


def test_a_killed_executor_is_gone_with_its_process(cluster: Cluster, make_run: MakeRun) -> None:
    run = make_run(long_spec())
    executor = cluster.reserve(run.spec.resources)
    cluster.launch(executor, run)
    sighting = look_for(cluster, executor, "running")
    cluster.kill(executor)
    look_for(cluster, executor, "gone")
    if not isinstance(cluster, InlineCluster):
        assert sighting.pid is not None
        assert not is_running(sighting.pid)
    cluster.release(executor, reusable=False)


def test_an_executor_that_never_was_is_gone(cluster: Cluster) -> None:
    assert cluster.look("executor-1c0g-000000000000").state == "gone"
    cluster.request_stop("executor-1c0g-000000000000", "cancelled")
    cluster.kill("executor-1c0g-000000000000")
    cluster.release("executor-1c0g-000000000000", reusable=True)


def test_the_ceiling_is_known(cluster: Cluster) -> None:
    capacity = cluster.capacity()
    assert capacity.cpus == 2
    assert capacity.fits(Resources(cpus_per_worker=2))
    assert not capacity.fits(Resources(cpus_per_worker=3))
    assert not capacity.minus(Resources(cpus_per_worker=2)).fits(Resources())
    assert capacity.nodes[0].memory_bytes > 1e9
    assert capacity.fits(Resources(workers=2))
    assert not capacity.fits(Resources(workers=3))
    assert not capacity.minus(Resources(workers=2)).fits(Resources())


def test_ray_keeps_one_warm_executor_and_uses_it_again(
    ray_cluster: Cluster, artifacts: LocalStore, make_run: MakeRun
) -> None:
    ray_cluster.tend(frozenset())
    first = ray_cluster.reserve(Resources())
    ray_cluster.launch(first, make_run(tiny_spec()))
    outcome_of(artifacts, make_run(tiny_spec()))
    ray_cluster.release(first, reusable=True)
    assert ray_cluster.reserve(Resources()) == first
    ray_cluster.release(first, reusable=False)
    look_for(ray_cluster, first, "gone")


def test_as_many_are_kept_warm_as_are_asked_for_and_find_room(
    ray_cluster: RayCluster, make_run: MakeRun
) -> None:
    ray_cluster.tend(frozenset(), spares=5)
    pids = wait_until(two_at_rest, 240, "two warm processes")
    runs = [make_run(long_spec()).model_copy(update={"attempt": n}) for n in (1, 2)]
    names = []
    for run in runs:
        names.append(ray_cluster.reserve(run.spec.resources))
        ray_cluster.launch(names[-1], run)
    assert {look_for(ray_cluster, name, "running").pid for name in names} == pids
    for name in names:
        ray_cluster.kill(name)
        look_for(ray_cluster, name, "gone")
        ray_cluster.release(name, reusable=False)


def two_at_rest() -> set[int] | None:
    """Process ids of executors that have started and have nothing to do, once there are two."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # zombies included
            if process.cmdline()[:1] == ["ray::Executor"]:
                found.add(process.pid)
    return found if len(found) == 2 else None


def test_the_end_of_an_attempt_and_of_its_process_are_told(
    ray_cluster: RayCluster, artifacts: LocalStore, make_run: MakeRun
) -> None:
    ended = threading.Event()
    ray_cluster.listen(spoken=lambda: None, ended=ended.set)
    run = make_run(tiny_spec())
    executor = ray_cluster.reserve(run.spec.resources)
    ray_cluster.launch(executor, run)
    assert ended.wait(240)
    sighting = ray_cluster.look(executor)
    assert sighting.state == "idle"
    assert sighting.pid is not None
    assert artifacts.exists(outcome_key(run.prefix))
    ray_cluster.release(executor, reusable=True)
    long = make_run(long_spec()).model_copy(update={"attempt": 2})
    executor = ray_cluster.reserve(long.spec.resources)
    ray_cluster.launch(executor, long)
    pid = look_for(ray_cluster, executor, "running").pid
    assert pid is not None
    ended.clear()
    os.kill(pid, signal.SIGKILL)
    assert ended.wait(240)
    look_for(ray_cluster, executor, "gone")
    ray_cluster.release(executor, reusable=False)


def test_the_spare_makes_room_for_another_shape(
    ray_cluster: Cluster, artifacts: LocalStore, make_run: MakeRun
) -> None:
    ray_cluster.tend(frozenset())
    spare = ray_cluster.reserve(Resources())
    ray_cluster.launch(spare, make_run(tiny_spec()))
    outcome_of(artifacts, make_run(tiny_spec()))
    ray_cluster.release(spare, reusable=True)
    large = tiny_spec().model_copy(update={"resources": Resources(cpus_per_worker=2)})
    run = make_run(large).model_copy(update={"attempt": 2})
    executor = ray_cluster.reserve(large.resources)
    assert executor != spare
    ray_cluster.launch(executor, run)
    assert outcome_of(artifacts, run).reason == "completed"
    look_for(ray_cluster, spare, "gone")
    ray_cluster.release(executor, reusable=True)
    look_for(ray_cluster, executor, "gone")


def test_an_executor_that_nobody_knows_is_ended(ray_cluster: RayCluster, make_run: MakeRun) -> None:
    run = make_run(long_spec())
    executor = ray_cluster.reserve(run.spec.resources)
    ray_cluster.launch(executor, run)
    pid = look_for(ray_cluster, executor, "running").pid
    assert pid is not None
    session = ray_cluster.session
    ray_cluster.tend(frozenset({executor}))
    assert is_running(pid)
    ray_cluster.release(executor, reusable=False)
    wait_until_gone(frozenset({pid}))
    assert ray_cluster.session == session


def test_a_stop_that_comes_before_the_beginning_is_not_forgotten(
    ray_cluster: RayCluster, artifacts: LocalStore, make_run: MakeRun
) -> None:
    spec = long_spec().model_copy(update={"resources": Resources(cpus_per_worker=2)})
    run = make_run(spec)
    executor = ray_cluster.reserve(spec.resources)  # a fresh one, which takes seconds to begin
    ray_cluster.launch(executor, run)
    ray_cluster.request_stop(executor, "cancelled")
    wait_until(  # whoever launches looks after it: that is when a new process is told to begin
        lambda: ray_cluster.look(executor) and artifacts.exists(outcome_key(run.prefix)), 240, "end"
    )
    assert outcome_of(artifacts, run).reason == "cancelled"
    look_for(ray_cluster, executor, "idle")
    ray_cluster.release(executor, reusable=False)


def test_a_spare_that_died_is_replaced_and_never_handed_out(
    ray_cluster: RayCluster, artifacts: LocalStore, make_run: MakeRun
) -> None:
    run = make_run(tiny_spec())
    spare = ray_cluster.reserve(run.spec.resources)
    ray_cluster.launch(spare, run)
    pid = look_for(ray_cluster, spare, "idle").pid
    ray_cluster.release(spare, reusable=True)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    give_up_at = time.monotonic() + 30
    while (offered := ray_cluster.reserve(Resources())) == spare:
        ray_cluster.release(spare, reusable=True)
        assert time.monotonic() < give_up_at
        ray_cluster.tend(frozenset())
        time.sleep(0.05)
    ray_cluster.release(offered, reusable=True)


def test_an_executor_is_found_again_by_another_host_without_waiting_for_it(
    ray_cluster: RayCluster, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped process answers nobody; the host must not wait for it."""
    run = make_run(long_spec())
    executor = ray_cluster.reserve(run.spec.resources)
    ray_cluster.launch(executor, run)
    pid = look_for(ray_cluster, executor, "running").pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr("service.cluster.ray_cluster.ANSWER_TIMEOUT_S", 2.0)
    for _ in range(20):
        ray_cluster.look(executor)
    ray_cluster.kill(executor)
    ray_cluster.release(executor, reusable=False)
    wait_until_gone(frozenset({pid}))


@pytest.mark.parametrize("name", ["raylet", "gcs_server", "ray_host"])
def test_a_ray_that_died_is_noticed_and_started_again(
    ray_cluster: RayCluster, artifacts: LocalStore, make_run: MakeRun, name: str
) -> None:
    run = make_run(long_spec())
    executor = ray_cluster.reserve(run.spec.resources)
    ray_cluster.launch(executor, run)
    look_for(ray_cluster, executor, "running")
    session = ray_cluster.session
    host = psutil.Process(process_named("ray_host", os.getpid()))
    before = {host.pid, *(child.pid for child in host.children(recursive=True))}
    os.kill(process_named(name, os.getpid()), signal.SIGKILL)
    with pytest.raises(ClusterDown):
        look_for(ray_cluster, executor, "never", timeout_s=120)
    ray_cluster.rejoin()
    wait_until_gone(frozenset(before))
    assert ray_cluster.session != session
    assert ray_cluster.look(executor).state == "gone"
    again = make_run(tiny_spec()).model_copy(update={"attempt": 2})
    executor = ray_cluster.reserve(again.spec.resources)
    ray_cluster.launch(executor, again)
    assert outcome_of(artifacts, again).reason == "completed"
    ray_cluster.release(executor, reusable=False)


def test_a_hanging_host_is_noticed_by_its_silence(
    ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.cluster.ray_cluster.ANSWER_TIMEOUT_S", 0.5)
    host = process_named("ray_host", os.getpid())
    os.kill(host, signal.SIGSTOP)
    with pytest.raises(ClusterDown, match="does not answer"):
        ray_cluster.look("executor-1c0g-000000000000")
    monkeypatch.undo()
    ray_cluster.rejoin()
    assert not is_running(host)
    assert ray_cluster.look("executor-1c0g-000000000000").state == "gone"


STARTS_A_HOST = """\
import os, subprocess, sys
fd = sys.argv[1]
host = [sys.executable, "-m", "service.cluster.ray_host", fd, fd, str(os.getpid())]
print(subprocess.Popen(host, pass_fds=(int(fd),), stdout=-3, stderr=-3).pid)
"""


def test_a_host_whose_service_died_before_the_host_had_begun_ends_too() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:  # so it is not told by the end of its questions
        fd = theirs.fileno()
        told = subprocess.run(
            [sys.executable, "-c", STARTS_A_HOST, str(fd)],
            pass_fds=(fd,),
            capture_output=True,
            text=True,
            check=True,
        )
        wait_until_gone(frozenset({int(told.stdout)}), timeout_s=60)


def test_a_cluster_that_is_not_there_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.cluster.ray_cluster.JOIN_TIMEOUT_S", 3.0)
    absent = RayCluster("127.0.0.1:1", tmp_path, None, "contract")
    with pytest.raises(ClusterUnavailable, match="RAY_ADDRESS"):
        absent.start()
    absent.close()
