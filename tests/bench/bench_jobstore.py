"""How long the job store takes with many jobs stored: ``python -m tests.bench.bench_jobstore``.

The bar is p99 of a list of 50 jobs with 10,000 stored: at most 50 ms, of which the store is a
part. Beside it stands a bare SELECT of as many rows by the primary key, in the same run.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import select

from service.jobs import Attempt, Job, JobFilter, JobState, Limits, Reason
from service.jobstore import JobStore, submitting
from service.jobstore.schema import JOBS
from workers.events import MetricsRecord
from workers.spec import TrainSpec

PAGE = 50
START = datetime(2026, 1, 1, tzinfo=UTC)


def jobs(count: int) -> list[Job]:
    """Every tenth is failed, the others succeeded but for the last twenty; two trainers."""
    specs = [
        TrainSpec.model_validate({"dataset": {"name": "mnist-10k"}, "trainer": {"kind": kind}})
        for kind in ("delta_vae", "vae")
    ]
    made = []
    for number in range(count):
        at = START + timedelta(seconds=number)
        spec = specs[number % 2]
        ended = JobState.FAILED if number % 10 == 0 else JobState.SUCCEEDED
        made.append(
            Job(
                id=f"job-{number:016x}",
                name=f"job {number}",
                labels={"team": f"team-{number % 20}", "all": ""},
                priority=0,
                limits=Limits(),
                spec=spec,
                spec_digest=spec.digest(),
                state=ended if number < count - 20 else JobState.QUEUED,
                reason=Reason.COMPLETED,
                message="",
                version=1,
                created_at=at,
                updated_at=at,
            )
        )
    return made


def timed(name: str, work: Callable[[], object], repetitions: int) -> None:
    """Run and print the median, the 99th percentile and the slowest."""
    work()
    seconds = []
    for _ in range(repetitions):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    seconds.sort()
    p50, p99 = seconds[len(seconds) // 2], seconds[int(len(seconds) * 0.99)]
    print(f"{name:42} {p50 * 1e3:9.2f} {p99 * 1e3:9.2f} {seconds[-1] * 1e3:9.2f}")


def measure(store: JobStore, stored: list[Job], repetitions: int) -> None:
    """The table."""
    print(f"{'ms':42} {'p50':>9} {'p99':>9} {'max':>9}")
    database = store._database

    def bare() -> object:
        with database.read() as connection:
            return connection.execute(select(JOBS).order_by(JOBS.c.id).limit(PAGE)).all()

    timed(f"bare SELECT of {PAGE} rows", bare, repetitions)
    middle = None
    for _ in range(3):
        middle = store.list(JobFilter(), middle, len(stored) // 6).next_cursor
    lists: dict[str, tuple[JobFilter, str | None]] = {
        "list, first page": (JobFilter(), None),
        "list, a page in the middle": (JobFilter(), middle),
        "list, state=failed": (JobFilter(state=JobState.FAILED), None),
        "list, state=cancelled (none)": (JobFilter(state=JobState.CANCELLED), None),
        "list, label of 1 in 20": (JobFilter(label=("team", "team-7")), None),
        "list, label that all have": (JobFilter(label=("all", None)), None),
        "list, label and state that exclude": (
            JobFilter(state=JobState.FAILED, label=("team", "team-7")),
            None,
        ),
        "list, trainer and state": (JobFilter(trainer="vae", state=JobState.QUEUED), None),
    }
    for name, (filter, cursor) in lists.items():
        timed(name, lambda f=filter, c=cursor: store.list(f, c, PAGE), repetitions)  # type: ignore[misc]
    timed("get", lambda: store.get(stored[-1].id), repetitions)
    timed("startable (20)", store.startable, repetitions)
    timed("ahead_of", lambda: store.ahead_of(stored[-1]), repetitions)
    timed("count_by_state", store.count_by_state, repetitions)
    _measure_writes(store, stored[-20:], repetitions)


def _measure_writes(store: JobStore, waiting: list[Job], repetitions: int) -> None:
    job = waiting[0]
    attempt = Attempt(job.id, 1, "executor", "session", START)
    store.start_attempt(job, attempt, Reason.STARTING, "")
    chunk = iter(range(10**9))

    def ingest() -> None:
        number = next(chunk)
        values = {f"metric_{n}": float(n) for n in range(12)}
        record = MetricsRecord(at=START, step=number, epoch=number / 10, values=values)
        store.ingest(job.id, 1, number, [record])

    timed("ingest a chunk of 12 metrics (durable)", ingest, repetitions)
    wishes = iter(waiting[1:])
    timed("request_cancel (durable)", lambda: store.request_cancel(next(wishes).id), 18)
    timed("metrics of a job, 12 curves", lambda: store.metrics(job.id), 20)


def main() -> None:
    """Fill a store in a temporary folder and measure it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--repetitions", type=int, default=300)
    arguments = parser.parse_args()
    stored = jobs(arguments.jobs)
    with tempfile.TemporaryDirectory() as folder:
        store = JobStore.open(f"sqlite:///{Path(folder) / 'jobs.db'}")
        with store._database.write() as connection:
            for job in stored:
                submitting.add(connection, job, None)
        print(f"{len(stored)} jobs stored")
        measure(store, stored, arguments.repetitions)
        store.close()


if __name__ == "__main__":
    main()
