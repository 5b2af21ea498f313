"""Submissions and durable points beside 1,000 followers of 10 running jobs."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx2
from sqlalchemy import create_engine, text

from tests.bench.bench_service import quantile, row
from tests.bench.load.watching import Crowd, Memory, Server, serving
from tests.e2e.processes import wait_until

JOBS, FOLLOWERS, EVENTS, VALUES = 10, 1000, 10, 15
ROUNDS = 3  # without and with followers, in turn
SUBMISSIONS = 120  # in each half of a round
PAUSE_S = 0.05
SETTLE_S = 3.0
SPEC: Mapping[str, Any] = {
    "spec": {
        "dataset": {"name": "mnist-10k"},
        "trainer": {"kind": "delta_vae", "network": {"kind": "mlp", "hidden": [32]}},
    }
}


def submissions(server: Server, count: int) -> list[float]:
    """Seconds of each of so many submissions, one after the other on one connection."""
    seconds = []
    with httpx2.Client(timeout=60) as http:
        for _ in range(count):
            begun = time.perf_counter()
            answer = http.post(f"{server.url}/v1/jobs", json=SPEC)
            seconds.append(time.perf_counter() - begun)
            answer.raise_for_status()
            time.sleep(PAUSE_S)
    return seconds


def counter(database_url: str) -> Callable[[], tuple[int, float]]:
    """How many points are durable, and how old the youngest of them is in seconds."""
    engine = create_engine(database_url)

    def count() -> tuple[int, float]:
        with engine.connect() as connection:
            found = connection.execute(text("SELECT count(*), max(at_us) FROM metric_points")).one()
        return found[0], time.time() - (found[1] or 0) / 1e6

    return count


def measure(name: str, database_url: str | None = None, followers: int = FOLLOWERS) -> None:
    """The rows of the table."""
    with serving(database_url, JOBS) as server:
        _measure(name, server, database_url, followers)


def _measure(name: str, server: Server, database_url: str | None, followers: int) -> None:
    jobs = [server.client.submit(SPEC).id for _ in range(JOBS)]
    server.play(EVENTS, VALUES)
    running = [server.client.job(job) for job in jobs]
    wait_until(lambda: all(job.refresh().body.progress for job in running), 60, "all to speak")
    submissions(server, 20)
    count = counter(database_url or f"sqlite:///{server.folder / 'spreadtrain.db'}")
    memory = Memory(server.process.pid)
    ratios, alone, beside, seen, rates, ages, busy = [], [], [], [], [], [], []
    for _ in range(ROUNDS):
        without = submissions(server, SUBMISSIONS)
        crowd = Crowd(server, jobs, followers)
        time.sleep(SETTLE_S)
        (before, _), began, cpu_s = count(), time.monotonic(), server.cpu_s()
        having = submissions(server, SUBMISSIONS)
        (after, age_s), lasted_s = count(), time.monotonic() - began
        busy.append((server.cpu_s() - cpu_s) / lasted_s)
        rates.append((after - before) / lasted_s)
        ages.append(age_s)
        seen.append(crowd.leave())
        alone += without
        beside += having
        ratios.append(quantile(having, 0.99) / quantile(without, 0.99))
    for share in (0.5, 0.99):
        figure, floor = quantile(beside, share), quantile(alone, share)
        bar = "≤ 2" if share == 0.99 else "reported"
        row(
            f"{name}: submit with {followers} followers ÷ without: p{100 * share:.0f}",
            f"{1e3 * figure:.1f} ms",
            f"{1e3 * floor:.1f} ms",
            f"{figure / floor:.2f}",
            bar,
        )
    row("  p99 in each round", " ".join(f"{ratio:.2f}" for ratio in ratios), "", "", "reported")
    offered = JOBS * EVENTS * VALUES
    rate = statistics.median(rates)
    row(
        "  points made durable meanwhile",
        f"{rate:.0f}/s",
        f"{offered}/s",
        f"{rate / offered:.2f}",
        "≥ 1,000/s",
    )
    row("  age of the youngest durable point", f"{max(ages):.1f} s", "", "", "reported")
    told = statistics.median(each["events_per_s"] for each in seen)
    due = followers * EVENTS
    row("  events told to followers", f"{told:.0f}/s", f"{due}/s", f"{told / due:.2f}", "reported")
    for which in ("p50", "p99"):
        delay = max(each[f"delay_{which}_s"] for each in seen)
        row(f"  from an event to its followers: {which}", f"{delay:.2f} s", "", "", "reported")
    lost = sum(each["gaps"] + each["ended"] for each in seen)
    row("  events lost, streams broken off", str(lost), "", "", "0")
    row("  the service's share of a core", f"{max(busy):.2f}", "", "", "reported")
    row("  memory of the service: first / most / last", memory.stop(), "", "", "bounded")
