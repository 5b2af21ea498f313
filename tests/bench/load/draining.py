"""A long queue of trivial jobs over reused processes: drained in order, nothing lost."""

import dataclasses
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from service.jobs import JobState, Reason
from service.jobstore import JobStore
from tests.bench.bench_service import row
from tests.bench.load.watching import Memory
from tests.e2e.processes import ServiceProcess, wait_until_gone

JOBS = 10_000
LOOK_INTERVAL_S = 1.0
SPEC: Mapping[str, Any] = {
    "dataset": {"kind": "ring", "samples": 100},
    "trainer": {
        "kind": "delta_vae",
        "network": {"kind": "mlp", "hidden": [4], "latent_dim": 2},
        "batch_size": 45,
        "epochs": 1,
        "grid_every_epochs": 100_000,
    },
}


def fill(database_url: str, count: int) -> None:
    """Queue so many copies of the only job there is, one after the other."""
    store = JobStore.open(database_url)
    engine = create_engine(database_url)
    with engine.connect() as connection:
        only = connection.execute(text("SELECT id FROM jobs")).scalar_one()
    engine.dispose()
    first, now = store.get(only), datetime.now(UTC)
    for number in range(count):
        at = now + timedelta(microseconds=number)
        store.add(
            dataclasses.replace(
                first,
                id=f"job-{number:016x}",
                state=JobState.QUEUED,
                reason=Reason.SUBMITTED,
                version=1,
                attempt=0,
                progress=None,
                ended_at=None,
                created_at=at,
                updated_at=at,
            )
        )
    store.close()


def measure(count: int = JOBS, at_most_s: float = 24 * 3600.0) -> None:
    """The rows of the table; a queue that is not drained in ``at_most_s`` is told as far as it
    is."""
    with tempfile.TemporaryDirectory(prefix="st-load-") as name:
        data_dir = Path(name) / "data"
        url = f"sqlite:///{data_dir / 'spreadtrain.db'}"
        service = ServiceProcess(data_dir)
        try:
            service.client.submit(SPEC).wait(240)
            pids = service.census()
            service.stop()
            service.end()
            wait_until_gone(pids)
            fill(url, count)
            service = ServiceProcess(data_dir)
            _measure(service, url, count, at_most_s)
        finally:
            pids = service.census()
            service.stop()
            service.end()
            wait_until_gone(pids)


def _measure(service: ServiceProcess, url: str, count: int, at_most_s: float) -> None:
    memory = Memory(service.process.pid)
    engine = create_engine(url)
    began, drained = time.monotonic(), 0
    while drained < count and time.monotonic() - began < at_most_s:
        time.sleep(LOOK_INTERVAL_S)
        with engine.connect() as connection:
            drained = connection.execute(
                text("SELECT count(*) FROM jobs WHERE id LIKE 'job-0%' AND state = 'succeeded'")
            ).scalar_one()
    lasted_s = time.monotonic() - began
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT job_id, created_us, reason, pid FROM attempts WHERE job_id LIKE 'job-0%' "
                "AND ended_us IS NOT NULL ORDER BY created_us"
            )
        ).all()
        states = (
            connection.execute(
                text("SELECT state, count(*) FROM jobs WHERE id LIKE 'job-0%' GROUP BY state")
            )
            .tuples()
            .all()
        )
    engine.dispose()
    ids = [each.job_id for each in rows]
    out_of_order = sum(later < sooner for sooner, later in pairwise(ids))
    ended: dict[str, int] = dict(states)
    row(
        f"{count} queued trivial jobs, drained in {lasted_s:.0f} s",
        f"{drained / lasted_s:.2f}/s",
        "",
        "",
        "reported",
    )
    row("  succeeded", str(drained), str(count), f"{drained / count:.2f}", "all")
    lost = count - sum(ended.values()) + ended.get("failed", 0) + ended.get("cancelled", 0)
    row("  lost or failed", str(lost), "", "", "0")
    row("  attempts beyond one for a job", str(len(ids) - len(set(ids))), "", "", "0")
    row("  started before one that was submitted earlier", str(out_of_order), "", "", "0")
    row("  processes that ran them", str(len({each.pid for each in rows})), "", "", "reported")
    row("  memory of the service: first / most / last", memory.stop(), "", "", "bounded")
