"""What a job leaves, in bytes: ``python -m tests.bench.bench_sizing``.

docs/sizing.md has what it printed. One real job of the default shape runs over a real PostgreSQL
and a folder. Its records are then stored for many jobs, so that a table's size over its rows means
something. A table's size counts its indexes.
"""

import argparse
import contextlib
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from sqlalchemy import create_engine

from service.cluster.inline import InlineCluster
from service.jobs import FINAL_STATES, Attempt, Job, JobRequest, JobState, Reason
from service.jobstore import JobStore
from tests.bench.bench_study_answers import fill as fill_study
from tests.harness import make_service
from tests.postgres import Postgres
from workers.artifacts import open_store
from workers.events import RECORD, Record
from workers.spec import TrainSpec

JOB_TABLES = (
    *("jobs", "attempts", "events", "metric_series"),
    *("metric_points", "checkpoints", "artifacts"),
)
STUDY_TABLES = ("trials", "trial_results")
NETWORKS: dict[str, dict[str, object]] = {
    "mlp, the default": {"kind": "mlp"},
    "convolutional": {"kind": "conv", "channels": [32, 64], "latent_dim": 64},
}


def spec(network: dict[str, object], epochs: int) -> TrainSpec:
    """Real digits, with the default's checkpoints and grids."""
    return TrainSpec.model_validate(
        {
            "dataset": {"name": "mnist-10k"},
            "trainer": {"kind": "delta_vae", "epochs": epochs, "network": network},
        }
    )


def kind_of(path: Path) -> str:
    """What an object is, in the words of the table."""
    if path.parent.name == "events":
        return "event chunk"
    if path.parent.name == "grids":
        return "grid"
    return "log chunk" if "logs" in path.parts else path.name


def objects(folder: Path) -> None:
    """A job's objects by kind."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for path in (folder / "jobs").rglob("*"):
        if path.is_file():
            counts[kind_of(path)] += 1
            sizes[kind_of(path)] += path.stat().st_size
    for kind, count in counts.most_common():
        print(f"  {kind:28} {count:5} objects, {sizes[kind] / count:12,.0f} bytes each")
    print(f"  {'all':28} {counts.total():5} objects, {sizes.total():12,} bytes")


def records(folder: Path) -> list[list[Record]]:
    """The job's event chunks, in their order."""
    chunks = sorted((folder / "jobs").rglob("events/*.jsonl"))
    return [[RECORD.validate_json(line) for line in c.read_bytes().splitlines()] for c in chunks]


def fill(store: JobStore, first: Job, chunks: Sequence[Sequence[Record]], copies: int) -> None:
    """As many further jobs with the same records."""
    for number in range(copies):
        at = first.created_at + timedelta(seconds=number)
        job = replace(
            first,
            id=f"job-{number:016x}",
            created_at=at,
            updated_at=at,
            state=JobState.QUEUED,
            version=1,
        )
        store.add(job)
        store.start_attempt(job, Attempt(job.id, 1, "executor", "session", at), Reason.STARTING, "")
        for chunk, found in enumerate(chunks):
            store.ingest(job.id, 1, chunk, list(found))


def tables(url: str, names: Sequence[str]) -> None:
    """Rows and bytes a row of each table."""
    engine = create_engine(url)
    with engine.connect() as connection:
        total = 0
        for table in names:
            rows = connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one()
            size = connection.exec_driver_sql(
                f"SELECT pg_total_relation_size('{table}')"
            ).scalar_one()
            total += size
            print(f"  {table:28} {rows:8} rows, {size / max(rows, 1):8.0f} bytes each")
        first = connection.exec_driver_sql(f"SELECT count(*) FROM {names[0]}").scalar_one()
        print(f"  {'for each of ' + names[0]:28} {total / first:22,.0f} bytes")
    engine.dispose()


def main() -> None:
    """Run the jobs, store copies of the first one's records, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--copies", type=int, default=300)
    arguments = parser.parse_args()
    server = Postgres()
    with contextlib.closing(server), server.database() as database:
        url = server.url(database)
        store = JobStore.open(url)
        copied: tuple[Job, list[list[Record]]] | None = None
        for name, network in NETWORKS.items():
            with tempfile.TemporaryDirectory() as folder, contextlib.closing(InlineCluster()) as c:
                artifacts = open_store((Path(folder) / "artifacts").as_uri())
                service = make_service(store, artifacts, Path(folder) / "cache", c, 120)
                epochs = arguments.epochs if copied is None else 1
                request = JobRequest(spec=spec(network, epochs))
                job = service.run_until(
                    service.submit(request), lambda j: j.state in FINAL_STATES, 3600
                )
                print(f"{name}, {epochs} epochs: {job.state}, {len(store.events(job.id))} events")
                objects(Path(folder) / "artifacts")
                if copied is None:
                    copied = job, records(Path(folder) / "artifacts")
        assert copied is not None
        fill(store, *copied, arguments.copies)
        print(f"PostgreSQL, with {arguments.copies} more jobs of the first kind")
        tables(url, JOB_TABLES)
        server.execute("VACUUM FULL", database)  # a job's row changes with each chunk
        print("the same without what was overwritten")
        tables(url, JOB_TABLES)
        store.close()
    with contextlib.closing(Postgres()) as other, other.database() as database:
        store = JobStore.open(other.url(database))
        fill_study(store)
        print("a study of 1,000 trials, 20 epochs or 6, 30 metrics: beside its jobs")
        tables(other.url(database), STUDY_TABLES)
        store.close()


if __name__ == "__main__":
    main()
