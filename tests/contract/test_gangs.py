"""Attempts with several workers: what every cluster must do, and what Ray must not leave behind."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from service.cluster.base import Cluster
from service.cluster.ray_cluster import RayCluster
from service.jobs import Job, JobState
from service.jobstore import JobStore
from service.logs import Cursor, Logs
from tests import ray_census
from tests.contract.test_cluster import look_for, outcome_of
from tests.contract.test_logs import has_begun, pid_of
from tests.e2e.processes import wait_until, wait_until_gone
from tests.factories import long_spec, request
from tests.harness import make_service
from tests.other_ray import oldest
from tests.own_ray import own_ray, tell
from tests.ray_census import Census
from workers.artifacts import LocalStore, chunk_key, outcome_key
from workers.events import RECORD, MetricsRecord, Outcome
from workers.logs import local_log_path
from workers.run import Run
from workers.spec import Resources, TrainSpec

MLP = {"kind": "mlp", "hidden": [32], "latent_dim": 4}
CONV = {"kind": "conv", "channels": [4, 8], "kernel_size": 3, "latent_dim": 4}
# Each step's sums are taken in another order, which changes the last of float32's 24 bits here and
# there; Adam carries such differences on for these 24 steps, and a mean over an epoch hides none.
TOLERANCE = 24 * 2.0**-23


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("orders")


@pytest.fixture(scope="module")
def one_ray(orders: Path) -> Iterator[RayCluster]:
    with own_ray(orders, 2, "gangs") as made:
        yield made


def run_of(artifacts: LocalStore, spec: TrainSpec, workers: int, attempt: int = 1) -> Run:
    return Run(
        job_id="job-1",
        attempt=attempt,
        spec=spec.model_copy(update={"resources": Resources(workers=workers)}),
        artifacts_uri=artifacts.uri,
        cache_dir=artifacts.root,
    )


def digits(network: dict[str, object]) -> TrainSpec:
    """24 steps on small pictures, of which the last of each epoch are few."""
    return TrainSpec.model_validate(
        {
            "dataset": {"name": "digits"},
            "trainer": {
                "kind": "delta_vae",
                "network": network,
                "epochs": 4,
                "batch_size": 300,
            },
        }
    )


def losses(artifacts: LocalStore, run: Run, outcome: Outcome) -> list[float]:
    assert outcome.reason == "completed", outcome.message
    assert outcome.chunks is not None
    records = [
        RECORD.validate_json(line)
        for chunk in range(outcome.chunks)
        for line in artifacts.get(chunk_key(run.prefix, chunk)).splitlines()
    ]
    metrics = [each for each in records if isinstance(each, MetricsRecord)]
    return [
        value
        for each in metrics
        if each.epoch == round(each.epoch)
        for value in (each.values["loss_nats"], each.values["held_out_loss_nats"])
    ]


@pytest.mark.parametrize(
    ("cluster", "network"),
    [("inline", MLP), ("inline", CONV), ("ray", MLP), ("ray", CONV)],
    indirect=["cluster"],
    ids=["inline-mlp", "inline-conv", "ray-mlp", "ray-conv"],
)
def test_two_workers_give_the_same_loss_curve_as_one(
    cluster: Cluster, artifacts: LocalStore, network: dict[str, object]
) -> None:
    curves = []
    for workers in (1, 2):
        run = run_of(artifacts, digits(network), workers, attempt=workers)
        executor = cluster.reserve(run.spec.resources)
        cluster.launch(executor, run)
        curves.append(losses(artifacts, run, outcome_of(artifacts, run)))
        is_gang_on_ray = workers == 2 and isinstance(cluster, RayCluster)
        used = both_workers() if is_gang_on_ray else frozenset()
        cluster.release(executor, reusable=True)
    if used:  # no gang is ever kept
        wait_until_gone(used)
        left = take_census()
        assert not {*left.groups, *left.actors} & {f"gangs/{executor}", *gang_of(executor)}
    assert len(curves[0]) == 8
    assert curves[1] == pytest.approx(curves[0], rel=TOLERANCE)


@pytest.mark.parametrize("cluster", ["inline"], indirect=True)  # on Ray, tests/e2e/test_gangs.py
def test_a_stop_ends_all_workers_with_its_reason(cluster: Cluster, artifacts: LocalStore) -> None:
    run = run_of(artifacts, long_spec(), 2)
    executor = cluster.reserve(run.spec.resources)
    cluster.launch(executor, run)
    look_for(cluster, executor, "running")
    cluster.request_stop(executor, "cancelled")
    assert outcome_of(artifacts, run).reason == "cancelled"
    cluster.kill(executor)
    look_for(cluster, executor, "gone")
    cluster.release(executor, reusable=False)


def test_killing_an_executor_ends_all_its_workers(cluster: Cluster, artifacts: LocalStore) -> None:
    run = run_of(artifacts, long_spec(), 2)
    executor = cluster.reserve(run.spec.resources)
    cluster.launch(executor, run)
    look_for(cluster, executor, "running")
    workers = worker_processes()
    if isinstance(cluster, RayCluster):
        workers = set(both_workers())
        held = take_census()
        assert held.groups == [f"gangs/{executor}"]
        assert sorted(held.actors) == gang_of(executor)
    cluster.kill(executor)
    look_for(cluster, executor, "gone")
    assert not workers & worker_processes()
    cluster.release(executor, reusable=False)
    if isinstance(cluster, RayCluster):
        census = take_census()
        assert not {*census.groups, *census.actors}


def test_a_stop_is_heard_while_a_gang_is_starting(cluster: Cluster, artifacts: LocalStore) -> None:
    run = run_of(artifacts, long_spec(), 2)
    executor = cluster.reserve(run.spec.resources)
    cluster.launch(executor, run)
    cluster.request_stop(executor, "cancelled")
    wait_until(
        lambda: cluster.look(executor) and artifacts.exists(outcome_key(run.prefix)), 240, "its end"
    )
    assert outcome_of(artifacts, run).reason == "cancelled"
    cluster.release(executor, reusable=False)


# --- on Ray -----------------------------------------------------------------------------------


def worker_processes() -> set[int]:
    """Process ids of all executors, warm ones included."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # ended since they were listed
            is_ended = child.status() == psutil.STATUS_ZOMBIE
            title = " ".join(child.cmdline())  # with its name in between while it is called
            if not is_ended and title.startswith("ray::") and "Executor" in title:
                found.add(child.pid)
    return found


def both_workers() -> frozenset[int]:
    """Process ids of a gang that has all cores; one that is asked just now has another name."""

    def both() -> frozenset[int] | None:
        found = frozenset(worker_processes())
        return found if len(found) == 2 else None

    return wait_until(both, 240, "two workers") or frozenset()


def gang_of(executor: str) -> list[str]:
    """The names of its actors."""
    return [executor, f"{executor}.1"]


def take_census() -> Census:
    """Of the own Ray below this process; what the raylet has just forked has its name too."""
    raylet = oldest("raylet", [child.pid for child in psutil.Process().children(recursive=True)])
    assert raylet is not None
    words = psutil.Process(raylet).cmdline()
    address = next(word.partition("=")[2] for word in words if word.startswith("--gcs-address="))
    return ray_census.take(address)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_gang_that_loses_a_worker_is_ended(
    ray_cluster: RayCluster, artifacts: LocalStore, rank: int
) -> None:
    run = run_of(artifacts, long_spec(), 2)
    executor = ray_cluster.reserve(run.spec.resources)
    ray_cluster.launch(executor, run)
    first = look_for(ray_cluster, executor, "running").pid
    workers = worker_processes()
    victim = first if rank == 0 else next(pid for pid in workers if pid != first)
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    if rank == 1:
        outcome = outcome_of(artifacts, run)
        assert outcome.reason == "worker_lost"
        assert "worker 1" in outcome.message
    sighting = look_for(ray_cluster, executor, "gone")
    assert f"worker {rank}: its process was killed" in (sighting.detail or "")
    assert not worker_processes()
    ray_cluster.release(executor, reusable=False)
    assert take_census().groups == []


LAST_WORDS = """
import os, signal
os.write(1, b"last words\\n")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_worker_1_said_is_in_the_log_under_its_number(
    ray_cluster: RayCluster, jobs: JobStore, artifacts: LocalStore, tmp_path: Path, orders: Path
) -> None:
    service = make_service(jobs, artifacts, tmp_path, ray_cluster, start_timeout_s=240)
    logs = Logs(jobs, artifacts)
    spec = long_spec().model_copy(update={"resources": Resources(workers=2)})
    job = service.submit(request(spec, limits={"max_attempts": 1}))
    job = service.run_until(job, has_begun(service), 240)
    victim = (worker_processes() - {pid_of(service, job)}).pop()

    def texts(rank: int) -> list[str]:
        page = logs.read(job.id, 1, Cursor(), 10_000, rank)
        assert not page.has_more
        return [said.line.text for said in page.lines]

    def is_heard(now: Job) -> bool:
        return "a word of worker 1" in texts(1)

    tell(orders, victim, "print('a word of worker 1')")
    service.run_until(job, is_heard, 240)  # while it lives
    tell(orders, victim, LAST_WORDS)
    job = service.run_until(job, lambda now: now.state is JobState.FAILED, 240)
    assert "worker 1" in job.message
    first, *rest = texts(1)
    assert f"process {victim}:" in first
    assert [text for text in rest if "word" in text] == ["a word of worker 1", "last words"]
    assert not {"a word of worker 1", "last words"} & set(texts(0))
    assert any("ended: worker_lost" in text for text in texts(0))
    assert not [rank for rank in (0, 1) if local_log_path(tmp_path, job.id, 1, rank).exists()]


def test_a_gang_that_the_service_does_not_know_is_ended(
    ray_cluster: RayCluster, artifacts: LocalStore
) -> None:
    run = run_of(artifacts, long_spec(), 2)
    executor = ray_cluster.reserve(run.spec.resources)
    ray_cluster.launch(executor, run)
    look_for(ray_cluster, executor, "running")
    workers = worker_processes()
    ray_cluster.tend(frozenset({executor}))
    assert worker_processes() == workers
    ray_cluster.tend(frozenset())
    wait_until_gone(frozenset(workers))
    assert take_census().groups == []


def test_a_gang_waits_for_all_its_cores_at_once(
    ray_cluster: RayCluster, artifacts: LocalStore
) -> None:
    """It takes none of them before."""
    alone = run_of(artifacts, long_spec(), 1)
    holder = ray_cluster.reserve(alone.spec.resources)
    ray_cluster.launch(holder, alone)
    look_for(ray_cluster, holder, "running")
    run = run_of(artifacts, long_spec(), 2, attempt=2)
    executor = ray_cluster.reserve(run.spec.resources)
    ray_cluster.launch(executor, run)
    give_up_at = time.monotonic() + 2
    while time.monotonic() < give_up_at:
        assert ray_cluster.look(executor).state == "pending"
        time.sleep(0.1)
    assert len(worker_processes()) == 1
    ray_cluster.release(holder, reusable=False)
    look_for(ray_cluster, executor, "running")
    ray_cluster.release(executor, reusable=False)
    look_for(ray_cluster, executor, "gone")
