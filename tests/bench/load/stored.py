"""Lists, filters and metrics with 100,000 jobs and 10⁷ points stored, over HTTP."""

import random
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import Connection, create_engine, insert, text

from service.jobs import Job, JobState, Reason
from service.jobstore import JobStore
from service.jobstore.rows import job_row, to_us
from service.jobstore.schema import ATTEMPTS, JOBS, LABELS, SERIES
from tests.bench.bench_jobstore import jobs
from tests.bench.bench_service import quantile, row
from tests.bench.load.watching import Memory, Server

JOBS_STORED = 100_000
# Of each job a few curves, as of a short run; of each hundredth many and long ones.
SHORT = (2, 45)  # curves, points in each
LONG = (10, 110)
LONG_EVERY = 100
# One job by itself has ten curves of a thousand points, as of a run over days.
LONGEST = (10, 1000)
REQUESTS, WARM = 200, 10
BATCH = 5000


def fill(database_url: str, count: int = JOBS_STORED) -> tuple[list[str], int]:
    """Store so many jobs that have ended, and their points, by bulk insert; the ids, and the
    points."""
    JobStore.open(database_url).close()
    engine = create_engine(database_url)
    made = jobs(count)
    with engine.begin() as connection:
        for begin in range(0, count, BATCH):
            _store(connection, made[begin : begin + BATCH])
        points = _store_points(connection, count)
    if engine.dialect.name == "postgresql":  # what its autovacuum does within minutes
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM (ANALYZE)"))
    engine.dispose()
    return [job.id for job in made], points


def _store(connection: Connection, made: list[Job]) -> None:
    rows = []
    for job in made:
        state = JobState.SUCCEEDED if job.state is JobState.QUEUED else job.state
        ended = {"state": state.value, "attempt": 1, "ended_us": to_us(job.updated_at)}
        rows.append(job_row(job) | ended)
    connection.execute(insert(JOBS), rows)
    connection.execute(
        insert(LABELS),
        [
            {"job_id": job.id, "key": key, "value": value, "created_us": to_us(job.created_at)}
            for job in made
            for key, value in job.labels.items()
        ],
    )
    attempt = {
        "number": 1,
        "executor_id": "executor",
        "session": "session",
        "next_chunk": 1,
        "reason": Reason.COMPLETED.value,
    }
    connection.execute(
        insert(ATTEMPTS),
        [
            attempt | {"job_id": job.id, "created_us": to_us(job.created_at), "started_us": 1}
            for job in made
        ],
    )
    series = []
    for job in made:
        number = int(job.id.removeprefix("job-"), 16)
        series += [
            {"id": number * 16 + k, "job_id": job.id, "name": f"measure_{k}_nats"}
            for k in range(_shape(number)[0])
        ]
    connection.execute(insert(SERIES), series)


def _shape(number: int) -> tuple[int, int]:
    if number == 0:
        return LONGEST
    return LONG if number % LONG_EVERY == 0 else SHORT


def _store_points(connection: Connection, count: int) -> int:
    """In the order of their keys, made by the database itself: ten million do not cross to it."""
    longest, long, short = LONGEST[1], LONG[1], SHORT[1]
    steps = (
        "WITH RECURSIVE steps(step) AS "
        f"(SELECT 1 UNION ALL SELECT step + 1 FROM steps WHERE step < {longest}) "
    )
    wanted = (
        f"CASE WHEN id / 16 = 0 THEN {longest} "
        f"WHEN (id / 16) % {LONG_EVERY} = 0 THEN {long} ELSE {short} END"
    )
    for begin in range(0, count, BATCH):
        connection.execute(
            text(
                "INSERT INTO metric_points (series_id, attempt, step, epoch, value, at_us) "
                f"{steps} SELECT id, 1, step, step / 10.0, 1.0 / (step + id % 7), step * 1000000 "
                f"FROM metric_series JOIN steps ON step <= {wanted} "
                "WHERE id >= :begin AND id < :end ORDER BY id, step"
            ),
            {"begin": begin * 16, "end": (begin + BATCH) * 16},
        )
    return int(connection.execute(text("SELECT count(*) FROM metric_points")).scalar_one())


def questions(ids: list[str]) -> Mapping[str, tuple[str, Mapping[str, Any]]]:
    """What is asked, by name: a path with its query; ``*`` is another job each time."""
    return {
        "list of 50": ("/v1/jobs", {}),
        "list of 50 failed": ("/v1/jobs", {"state": "failed"}),
        "list, none of a state": ("/v1/jobs", {"state": "paused"}),
        "list, a trainer": ("/v1/jobs", {"trainer": "vae"}),
        "list, a trainer and a state": ("/v1/jobs", {"trainer": "vae", "state": "failed"}),
        "list, a data set": ("/v1/jobs", {"dataset": "mnist-10k"}),
        "list, a label of 1 in 20": ("/v1/jobs", {"label": "team=team-7"}),
        "list, a label that all have": ("/v1/jobs", {"label": "all"}),
        "list, a label and a state": ("/v1/jobs", {"label": "team=team-10", "state": "failed"}),
        "list, a label and a state that exclude": (
            "/v1/jobs",
            {"label": "team=team-7", "state": "failed"},
        ),
        "one job": ("/v1/jobs/*", {}),
        "metrics of a job, 2 curves of 45": ("/v1/jobs/*/metrics", {}),
        "metrics of a job, 10 curves of 110": (f"/v1/jobs/{ids[LONG_EVERY]}/metrics", {}),
        "metrics of a job, a curve of 1,000": (
            f"/v1/jobs/{ids[0]}/metrics",
            {"name": "measure_3_nats"},
        ),
        "metrics of a job, 10 curves of 1,000": (f"/v1/jobs/{ids[0]}/metrics", {}),
        "10 curves of 1,000, 200 points of each": (
            f"/v1/jobs/{ids[0]}/metrics",
            {"max_points": 200},
        ),
    }


def measure(name: str, database_url: str | None = None, count: int = JOBS_STORED) -> None:
    """The rows of the table."""
    with tempfile.TemporaryDirectory(prefix="st-load-") as path:
        folder = Path(path)
        url = database_url or f"sqlite:///{folder / 'spreadtrain.db'}"
        began = time.monotonic()
        ids, points = fill(url, count)
        print(
            f"{len(ids)} jobs and {points} points stored on {name} in "
            f"{time.monotonic() - began:.0f} s"
        )
        server = Server(folder, url, 1)
        try:
            _measure(name, server, ids)
        finally:
            server.close()


def _measure(name: str, server: Server, ids: list[str]) -> None:
    """Beside each question stands one that asks nothing of the store, in turn with it."""
    memory = Memory(server.process.pid)
    chance = random.Random(0)
    with httpx2.Client(base_url=server.url, timeout=60) as http:

        def ask(path: str, query: Mapping[str, Any]) -> float:
            begun = time.perf_counter()
            http.get(path, params=query).raise_for_status()
            return time.perf_counter() - begun

        for what, (path, query) in questions(ids).items():
            seconds, floor, cpu_s = [], [], 0.0
            for turn in range(WARM + REQUESTS):
                before = server.cpu_s()
                asked = ask(path.replace("*", chance.choice(ids)), query)
                used = server.cpu_s() - before
                nothing = ask("/livez", {})
                if turn >= WARM:
                    seconds.append(asked)
                    floor.append(nothing)
                    cpu_s += used
            row(
                f"{name}: {what}: p99",
                f"{1e3 * quantile(seconds, 0.99):.1f} ms",
                f"{1e3 * quantile(floor, 0.99):.1f} ms",
                "",
                f"≤ 50 ms; p50 {1e3 * quantile(seconds, 0.5):.1f} ms, "
                f"{1e3 * cpu_s / REQUESTS:.1f} ms of a core",
            )
    row("  memory of the service: first / most / last", memory.stop(), "", "", "bounded")
