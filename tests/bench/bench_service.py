"""The service against its floor: a whole job, first steps, samples, lists and memory.

A real service on a real local Ray; the floor is measured in the same run, in this process.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
import psutil
import torch

from api.client import JobHandle
from service.jobstore import JobStore
from tests.bench.bench_jobstore import jobs as stored_jobs
from tests.bench.bench_step import LAPLACE, BareLoop
from tests.e2e.processes import ServiceProcess, wait_until_gone
from workers.data import load
from workers.generate import Generator
from workers.images import render
from workers.spec import TrainSpec
from workers.spread import spread_of

EPOCHS = 20
JOBS = 20
REQUESTS = 200
STORED = 10_000
TINY: Mapping[str, Any] = {
    "dataset": {"name": "mnist-10k"},
    "trainer": {
        "kind": "delta_vae",
        "network": {"kind": "mlp", "hidden": [32], "latent_dim": 8},
        "epochs": 1,
    },
}


def row(name: str, figure: str, floor: str, ratio: str, bar: str) -> None:
    """Print one line of the table."""
    print(f"{name:58}{figure:>14}{floor:>16}{ratio:>9}  {bar}", flush=True)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which that share lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def timed(work: Callable[[], object], repetitions: int) -> list[float]:
    """Seconds of each repetition."""
    seconds = []
    for _ in range(repetitions):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return seconds


def first_step_s(job: JobHandle, submitted_at: float) -> float:
    """Seconds from the submission to the first optimiser step, by the worker's own clock."""
    at = job.refresh().body.attempts[0].first_step_at
    assert at is not None
    return at.timestamp() - submitted_at


def submit(service: ServiceProcess, spec: Mapping[str, Any]) -> tuple[JobHandle, float]:
    """A job run to its end, and its seconds to the first step."""
    submitted_at = time.time()
    job = service.client.submit(spec).wait(600)
    return job, first_step_s(job, submitted_at)


def measure_first_steps(service: ServiceProcess) -> None:
    """First job after start, reused executors, fresh executors."""
    _, first = submit(service, TINY)
    row("submit → first step: first job after start", f"{first:.3f} s", "", "", "reported")
    warm = [submit(service, TINY)[1] for _ in range(JOBS)]
    row(f"  warm, {JOBS} jobs in a row: p50", f"{quantile(warm, 0.5):.3f} s", "", "", "≤ 1.0 s")
    row("  p90", f"{quantile(warm, 0.9):.3f} s", "", "", "≤ 3 s")
    shaped = {**TINY, "resources": {"cpus_per_worker": 2}}
    fresh = [submit(service, shaped)[1] for _ in range(5)]
    row(
        "  a fresh process (another shape): p50",
        f"{quantile(fresh, 0.5):.3f} s",
        "",
        "",
        "reported",
    )


def measure_whole_job(service: ServiceProcess) -> JobHandle:
    """A 20-epoch job through the service against the bare loop, on one thread each."""
    spec: Mapping[str, Any] = {
        "dataset": {"name": "mnist-10k"},
        "trainer": {
            "kind": "delta_vae",
            "spread": {"kind": "laplace", "scale": 0.5},
            "epochs": EPOCHS,
            "evaluate_every_epochs": 5,
        },
        "checkpoint_every_epochs": 5,
    }
    parsed = TrainSpec.model_validate(spec)
    data = load(parsed.dataset, Path("unused"))
    steps = len(data.train) // 100
    bare = BareLoop(data.train, spread_of(parsed.trainer.spread), LAPLACE)  # type: ignore[union-attr]

    def bare_epoch() -> None:
        for _ in range(steps):
            bare.step()

    def bare_epochs(count: int) -> float:
        return sum(timed(bare_epoch, count))

    bare_epochs(1)
    ratios, shares = [], []
    for _ in range(3):
        before = bare_epochs(EPOCHS // 2)
        job = service.client.submit(spec).wait(600)
        after = bare_epochs(EPOCHS // 2)
        attempt = job.body.attempts[0]
        assert attempt.started_at is not None
        assert attempt.ended_at is not None
        wall = (attempt.ended_at - attempt.started_at).total_seconds()
        pace = [
            point.value
            for point in job.metrics(["data_per_s"])["data_per_s"]
            if point.epoch == round(point.epoch) and point.value is not None
        ]
        training = sum(len(data.train) / rate for rate in pace)
        ratios.append((before + after) / training)
        shares.append(1 - training / wall)
    rate = EPOCHS * len(data.train) / (before + after)
    row(
        f"{EPOCHS}-epoch job ÷ bare loop (pictures/s)",
        f"{rate * ratios[-1]:.0f}/s",
        f"{rate:.0f}/s",
        f"{statistics.median(ratios):.3f}",
        "≥ 0.95",
    )
    row(
        "  its share of start, evaluation, grids, checkpoints",
        f"{100 * statistics.median(shares):.1f} %",
        "",
        "",
        "reported",
    )
    return job


def measure_samples(service: ServiceProcess, job: JobHandle, folder: Path) -> None:
    """GET samples against decoding and drawing in this process, which is warm too."""
    generator = Generator.load(job.download_weights(folder / "weights.safetensors"))

    def floor() -> None:
        render(generator.sample(64, seed=0), generator.is_image)

    timed(floor, 20)
    path = f"{service.url}/v1/jobs/{job.id}/samples"
    checkpoint = job.checkpoints()[-1].id
    query: Mapping[str, str | int] = {"n": 64, "format": "png", "checkpoint": checkpoint}
    with httpx2.Client() as http:
        answer = http.get(path, params=query)
        answer.raise_for_status()
        timed(lambda: http.get(path, params=query), 20)
        floors, figures = [], []
        for _ in range(REQUESTS // 10):
            floors += timed(floor, 10)
            figures += timed(lambda: http.get(path, params=query), 10)
        tag = {"If-None-Match": answer.headers["ETag"]}
        assert http.get(path, params=query, headers=tag).status_code == 304
        unchanged = timed(lambda: http.get(path, params=query, headers=tag), REQUESTS)
    figure, base = quantile(figures, 0.5), quantile(floors, 0.5)
    row(
        "GET samples n = 64, PNG, hot: p50 ÷ decode and draw",
        f"{1e3 * figure:.2f} ms",
        f"{1e3 * base:.2f} ms",
        f"{figure / base:.2f}",
        "≤ 2",
    )
    row("  the same, 304: p50", f"{1e3 * quantile(unchanged, 0.5):.2f} ms", "", "", "≤ 3 ms")


def measure_lists(service: ServiceProcess) -> None:
    """A page of jobs with many stored."""
    with httpx2.Client() as http:
        url = f"{service.url}/v1/jobs"
        assert http.get(url, params={"limit": 50}).status_code == 200
        seconds = timed(lambda: http.get(url, params={"limit": 50}), REQUESTS)
        filtered = timed(lambda: http.get(url, params={"limit": 50, "state": "failed"}), REQUESTS)
    for name, values in (("list of 50", seconds), ("list of 50 failed", filtered)):
        row(
            f"{name} with {STORED} jobs stored: p99",
            f"{1e3 * quantile(values, 0.99):.1f} ms",
            "",
            "",
            "≤ 50 ms",
        )


def measure_memory(service: ServiceProcess, when: str) -> None:
    """Resident memory of the service and of the executors that wait."""

    def megabytes(process: psutil.Process) -> float:
        return float(process.memory_info().rss / 2**20)

    process = psutil.Process(service.process.pid)
    row(f"memory of the service, {when}", f"{megabytes(process):.0f} MiB", "", "", "reported")
    for child in process.children(recursive=True):
        if child.name().startswith("ray::Executor"):
            row("  of an executor that waits", f"{megabytes(child):.0f} MiB", "", "", "reported")


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data_dir = folder / "data"
        data_dir.mkdir()
        store = JobStore.open(f"sqlite:///{data_dir / 'spreadtrain.db'}")
        for ended in stored_jobs(STORED + 20)[:STORED]:  # the last twenty would be run
            store.add(ended)
        store.close()
        service = ServiceProcess(data_dir)
        row("figure", "measured", "floor", "ratio", "bar")
        try:
            measure_memory(service, "idle")
            measure_first_steps(service)
            job = measure_whole_job(service)
            measure_samples(service, job, folder)
            measure_lists(service)
            measure_memory(service, "after all this")
        finally:
            pids = service.census()
            service.stop()
            service.end()
            wait_until_gone(pids)


if __name__ == "__main__":
    main()
