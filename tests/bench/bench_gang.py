"""Two workers against one: pictures per second, seconds to the first step, and what is left behind.

The speed is that of ``train()`` in two processes with one thread each, start excluded, against one
of them alone; both take turns in one run. The start is that of a gang on an own Ray, and beside it
Ray Train's ``TorchTrainer`` with the same two workers. Run it with
``python -m tests.bench.bench_gang [speed] [start] [leftovers]``.
"""

import itertools
import json
import math
import multiprocessing
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import psutil
import torch

from service.cluster.ray_cluster import RayCluster
from service.settings import ALLOCATION, ray_environment
from tests import ray_census
from tests.bench.bench_step import CONV, MLP
from tests.e2e.processes import ROOT, wait_until
from tests.other_ray import OtherRay
from workers.artifacts import LocalStore, chunk_key
from workers.data import Dataset, load
from workers.events import RECORD, FirstStepRecord, StartedRecord
from workers.parallel import ALONE, LOOPBACK, Peers, join
from workers.run import Run
from workers.spec import TrainSpec
from workers.train import train

BAR = 1.7
NEVER = 100_000
REPETITIONS = 7
STARTS = 3
CENSUS_AFTER_S = (1.0, 10.0, 40.0)


@dataclass(frozen=True)
class Row:
    """One row of the table: what is trained, and for how many steps on each side."""

    name: str
    network: dict[str, Any]
    batch: int
    steps: int
    bar: str
    shape: tuple[int, ...] | None = None  # of drawn pictures; None is mnist-10k


COLOUR = {"kind": "conv", "channels": [32, 64, 128, 256]}
ROWS = (
    Row("conv 32-64, batch norm, batch 100", CONV, 100, 40, f"≥ {BAR}"),
    Row("conv 32-64, batch norm, batch 400", CONV, 400, 12, "reported"),
    Row("MLP 784-400-400-64, batch 100", MLP, 100, 150, "reported"),
    Row("MLP 784-400-400-64, batch 1000", MLP, 1000, 25, "reported"),
    Row("conv 32-64-128-256, 64×64 colour", COLOUR, 100, 4, f"≥ {BAR}", (64, 64, 3)),
    Row("the same, batch 400", COLOUR, 400, 3, f"≥ {BAR}", (64, 64, 3)),
)
WARM_STEPS = 5


def spec_of(row: Row, workers: int = 1) -> TrainSpec:
    """A run that does nothing but take steps."""
    return TrainSpec.model_validate(
        {
            "dataset": {"name": "mnist-10k"},
            "trainer": {
                "kind": "delta_vae",
                "network": row.network,
                "batch_size": row.batch,
                "epochs": 10_000,
                "evaluate_every_epochs": NEVER,
                "grid_every_epochs": NEVER,
            },
            "checkpoint_every_epochs": NEVER,
            "checkpoint_at_epochs": [],
            "resources": {"workers": workers},
        }
    )


# --- pictures per second ------------------------------------------------------------------------


def data_of(row: Row) -> Dataset:
    """Digits, or noise of the row's shape: what is in a picture does not change its cost."""
    digits = load(spec_of(row).dataset, Path("unused"))
    if row.shape is None:
        return digits
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 256, (3600, math.prod(row.shape)), generator=generator)
    pictures = rows.to(torch.uint8)
    info = replace(digits.info, count=len(pictures), shape=row.shape)
    return Dataset(info, pictures[:3200], pictures[3200:])


def timed(row: Row, data: Dataset, peers: Peers) -> float:
    """Seconds of so many steps, after some that are not counted."""
    asked, marks = 0, [0.0, 0.0]

    def should_stop() -> bool:
        nonlocal asked
        if asked == WARM_STEPS:
            marks[0] = time.perf_counter()
        if asked == WARM_STEPS + row.steps:
            marks[1] = time.perf_counter()
        asked += 1
        return asked > WARM_STEPS + row.steps

    for _ in train(spec_of(row), data, should_stop=should_stop, peers=peers):
        pass
    return marks[1] - marks[0]


def reduce_s(peers: Peers, size_bytes: int) -> float:
    """Seconds of one sum of so many bytes, with nothing else to do."""
    buffer = torch.zeros(size_bytes // 4)
    times = []
    for _ in range(50):
        begun = time.perf_counter()
        peers.all_reduce(buffer)
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def counted(peers: Peers, sizes: list[int]) -> Peers:
    """The same peers; the sizes in bytes of what they sum are noted."""

    def all_reduce(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel() * tensor.element_size())
        return peers.all_reduce(tensor)

    return Peers(peers.rank, peers.size, all_reduce, peers.close)


def measure_row(row: Row, rank: int, folder: Path, barrier: Barrier, data: Dataset) -> None:
    """One row, by one of the two processes; worker 0 prints it."""
    ones, twos, sizes, sums = [], [], list[int](), []
    for repetition in range(REPETITIONS):
        barrier.wait()
        address = f"file://{folder}/{ROWS.index(row)}-{repetition}"
        with join(rank, 2, address, host=LOOPBACK) as peers:
            sizes.clear()
            twos.append(timed(row, data, counted(peers, sizes)))
            sums.append(reduce_s(peers, max(sizes)))
        barrier.wait()
        if rank == 0:
            ones.append(timed(row, data, ALONE))
        barrier.wait()
    if rank:
        return
    pictures = row.batch * row.steps
    one, two = statistics.median(ones), statistics.median(twos)
    ratios = [a / b for a, b in zip(ones, twos, strict=True)]
    step_s, sum_s = one / row.steps, statistics.median(sums)
    print(
        f"{row.name:36}{pictures / one:10.0f}{pictures / two:10.0f}"
        f"{statistics.median(ratios):8.2f}{min(ratios):7.2f}{max(ratios):7.2f}"
        f"{max(sizes) / 1e6:8.2f}{1e3 * sum_s:8.2f}{step_s / (step_s / 2 + sum_s):8.2f}"
        f"{len(sizes) / (row.steps + WARM_STEPS):7.1f}  {row.bar}",
        flush=True,
    )


def speed_worker(rank: int, folder: Path, barrier: Barrier) -> None:
    """One of the two processes."""
    torch.set_num_threads(1)
    for row in ROWS:
        measure_row(row, rank, folder, barrier, data_of(row))


def measure_speed() -> None:
    """Print the table; the floor is half of one worker's step and the sum of the gradients.

    The processes allocate as executors do.
    """
    os.environ.update(ALLOCATION)
    print(
        f"{'pictures/s, two workers ÷ one':36}{'one':>10}{'two':>10}{'ratio':>8}{'min':>7}"
        f"{'max':>7}{'MB/sum':>8}{'ms/sum':>8}{'floor':>8}{'sums':>7}  bar"
    )
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        barrier = context.Barrier(2)
        processes = [
            context.Process(target=speed_worker, args=(rank, Path(folder), barrier))
            for rank in range(2)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            assert process.exitcode == 0


# --- seconds to the first step ------------------------------------------------------------------

IMPORTS = """
import time
at = time.perf_counter()
import torch
torch_at = time.perf_counter()
import workers.run
ours_at = time.perf_counter()
from workers.warm_up import warm_up
warm_up()
print(torch_at - at, ours_at - torch_at, time.perf_counter() - ours_at)
"""


def gang_run(folder: Path, attempt: int) -> Run:
    """An attempt by two workers that runs until it is stopped."""
    return Run(
        job_id="job-1",
        attempt=attempt,
        spec=spec_of(ROWS[2], workers=2),
        artifacts_uri=LocalStore(folder / "artifacts").uri,
        cache_dir=folder,
    )


def first_records(run: Run) -> tuple[float, float]:
    """When the run had data and peers, and when its first step was done."""
    store = LocalStore(Path(run.artifacts_uri.removeprefix("file://")))
    started = 0.0
    chunk = 0
    give_up_at = time.monotonic() + 120
    while time.monotonic() < give_up_at:
        if not store.exists(chunk_key(run.prefix, chunk)):
            time.sleep(0.01)
            continue
        for line in store.get(chunk_key(run.prefix, chunk)).splitlines():
            match RECORD.validate_json(line):
                case StartedRecord(at=at):
                    started = at.timestamp()
                case FirstStepRecord(at=at):
                    return started, at.timestamp()
        chunk += 1
    raise AssertionError("no first step within two minutes")


def start_gang(cluster: RayCluster, run: Run) -> tuple[str, list[float]]:
    """Launch; returns the executor, and the seconds of process, set-up, meeting and first step."""
    executor = cluster.reserve(run.spec.resources)
    launched_at = time.time()
    cluster.launch(executor, run)
    while (sighting := cluster.look(executor)).state != "running":
        time.sleep(0.01)
    running_at = time.time()
    assert sighting.pid is not None
    created_at = psutil.Process(sighting.pid).create_time()
    started_at, first_at = first_records(run)
    marks = [launched_at, created_at, running_at, started_at, first_at]
    return executor, [max(0.0, b - a) for a, b in itertools.pairwise(marks)]


def measure_start() -> None:
    """A gang on an own Ray that is up and holds no warm spare; then Ray Train on another one."""
    print(f"\n{'launch → first step of two workers, s':44}{'median':>9}{'max':>9}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cluster = RayCluster("", folder, 2, "bench")
        cluster.start()
        starts = []
        for attempt in range(1, STARTS + 1):
            executor, seconds = start_gang(cluster, gang_run(folder, attempt))
            starts.append([*seconds, sum(seconds)])
            cluster.release(executor, reusable=False)
            wait_until(lambda: cluster.look(executor).state == "gone", 30, "its end")  # noqa: B023
        cluster.close()
    names = (
        "plain actors: Ray to a process (it may be forked before)",
        "  imports, warm-up, both processes there",
        "  data, meeting, connections",
        "  network, first step",
        "  all",
    )
    for part, each in zip(names, zip(*starts, strict=True), strict=True):
        show(part, each)
    alone = [
        [float(word) for word in output(sys.executable, "-c", IMPORTS).split()]
        for _ in range(STARTS)
    ]
    imports = ("one process alone: import torch", "  import the rest", "  warm-up")
    for part, each in zip(imports, zip(*alone, strict=True), strict=True):
        show(part, each)
    trains = []
    for _ in range(STARTS):
        with head() as address:
            driver, marks = start_ray_train(address)
            end(driver)
            trains.append(marks)
    show("Ray Train: fit() → first line of the loop", [each["line"] for each in trains])
    show("  fit() → first step", [each["step"] for each in trains])


def show(name: str, seconds: Any) -> None:
    """One line of seconds."""
    print(f"{name:60}{statistics.median(seconds):9.2f}{max(seconds):9.2f}", flush=True)


def output(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


# --- what is left after the driver's death ------------------------------------------------------


@contextmanager
def head() -> Iterator[str]:
    """The address of a Ray cluster of two cores that nobody owns, ended by its processes."""
    ray = OtherRay(token=os.environ["RAY_AUTH_TOKEN"])
    try:
        yield ray.settings["RAY_ADDRESS"]
    finally:
        ray.close()


def start_ray_train(address: str) -> tuple[subprocess.Popen[bytes], dict[str, float]]:
    """A driver with a TorchTrainer at work, and its seconds from fit() to line and step."""
    folder = Path(tempfile.mkdtemp(prefix="st-train-"))
    driver = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.ray_train_gang", address, str(folder)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    marks = wait_until(lambda: read_marks(folder, driver), 180, "Ray Train's first step")
    assert marks is not None
    return driver, marks


def read_marks(folder: Path, driver: subprocess.Popen[bytes]) -> dict[str, float] | None:
    """The marks, once they are there."""
    assert driver.poll() is None, "the driver of Ray Train ended"
    path = folder / "marks.json"
    if not path.exists():
        return None
    marks: dict[str, float] = json.loads(path.read_text())
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    return marks


def end(driver: subprocess.Popen[bytes]) -> None:
    """kill -9."""
    driver.kill()
    driver.wait()


def census(address: str) -> str:
    """Placement groups, named actors, workers' processes and free cores."""
    held = ray_census.take(address)
    busy = [pid for pid in descendants() if is_actor(pid)]
    return f"{len(held.groups):>8}{len(held.actors):>14}{len(busy):>12}{held.free_cpus:>12}"


def is_actor(pid: int) -> bool:
    """Whether it is a process of Ray's that runs an actor; its agents are called alike."""
    try:
        title = " ".join(psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return False
    return title.startswith("ray::") and not any(word in title for word in ("IDLE", "Agent"))


def descendants() -> set[int]:
    """All processes below this one."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


def measure_leftovers() -> None:
    """What each leaves on a cluster after its driver was killed (-9)."""
    columns = f"{'groups':>8}{'named actors':>14}{'processes':>12}{'free cores':>12}"
    print(f"\n{'after kill -9 of the driver, s':44}{columns}")
    with head() as address:
        driver, _ = start_ray_train(address)
        print(f"{'Ray Train: at work':44}{census(address)}", flush=True)
        end(driver)
        watch("Ray Train", address)
    with head() as address, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cluster = RayCluster(address, folder, None, "bench")
        cluster.start()
        executor, _ = start_gang(cluster, gang_run(folder, 1))
        print(f"{'plain actors: at work':44}{census(address)}", flush=True)
        end(host_of(cluster))
        cluster.rejoin()
        assert cluster.look(executor).state in ("pending", "running")
        print(f"{'  1 s, found again by name':44}{census(address)}", flush=True)
        end(host_of(cluster))
        cluster.rejoin()
        cluster.tend(frozenset())
        print("a new host ends what nobody knows, and has one warm spare of its own:")
        watch("plain actors", address)
        cluster.close()


def host_of(cluster: RayCluster) -> subprocess.Popen[bytes]:
    """The cluster's driver."""
    host = cluster._host
    assert host is not None
    return host


def watch(name: str, address: str) -> None:
    """The census at some times after a death."""
    dead_at = time.monotonic()
    for after_s in CENSUS_AFTER_S:
        time.sleep(max(0.0, dead_at + after_s - time.monotonic()))
        print(f"{f'{name}: {after_s:.0f} s':44}{census(address)}", flush=True)


def main() -> None:
    """Print what is asked for, or everything."""
    asked = set(sys.argv[1:]) & {"speed", "start", "leftovers"} or {"speed", "start", "leftovers"}
    if "speed" in asked:
        measure_speed()
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    ray_environment(joining=False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if "start" in asked:
        measure_start()
    if "leftovers" in asked:
        measure_leftovers()


if __name__ == "__main__":
    main()
