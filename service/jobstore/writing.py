"""What every write shares: the clock, the lock on a job's row, the numbering of events."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Table, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from service.errors import JobNotFound
from service.jobs import Job
from service.jobstore.rows import to_job, to_json, to_us
from service.jobstore.schema import EVENTS, JOBS


def now_us() -> int:
    """Microseconds since 1970, now."""
    return to_us(datetime.now(UTC))


def insert_if_absent(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert the row unless its key is taken; whether it was inserted.

    On PostgreSQL a writer of the same key is waited for, so the answer holds.
    """
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table).values(dict(row)).on_conflict_do_nothing()
    # Not by the count of rows, which the driver of PostgreSQL does not always tell.
    return connection.execute(statement.returning(*table.primary_key)).first() is not None


def locked_job(connection: Connection, job_id: str) -> Row[Any]:
    """The job's row, which nobody else changes until the transaction ends; JobNotFound."""
    row = connection.execute(
        select(JOBS).where(JOBS.c.id == job_id, JOBS.c.deleted_us.is_(None)).with_for_update()
    ).first()
    if row is None:
        raise JobNotFound(f"there is no job {job_id}; GET /v1/jobs lists them")
    return row


def changed(
    connection: Connection, row: Row[Any], values: Mapping[str, Any], at_us: int | None = None
) -> Job:
    """A locked job's next version, with these values."""
    stored = connection.execute(
        update(JOBS)
        .where(JOBS.c.id == row.id)
        .values({**values, "version": row.version + 1, "updated_us": at_us or now_us()})
        .returning(JOBS)
    ).one()
    return to_job(stored)


def append_events(
    connection: Connection, job_id: str, events: Sequence[tuple[int, int, str, str]]
) -> int:
    """Append (at_us, attempt, kind, data) to the job's events; the first one's number.

    The update locks the job's row, so that the numbers of concurrent writers have no gaps.
    """
    last = connection.execute(
        update(JOBS)
        .where(JOBS.c.id == job_id)
        .values(last_seq=JOBS.c.last_seq + len(events))
        .returning(JOBS.c.last_seq)
    ).scalar_one()
    first = last - len(events) + 1
    rows = [
        {"job_id": job_id, "seq": seq, "at_us": at, "attempt": attempt, "kind": kind, "data": data}
        for seq, (at, attempt, kind, data) in enumerate(events, first)
    ]
    if rows:
        connection.execute(insert(EVENTS), rows)
    return int(first)


def append_state_event(
    connection: Connection,
    job_id: str,
    at_us: int,
    attempt: int,
    state: str,
    reason: str,
    text: str,
) -> None:
    """Write down that the job has come into a state, or has a new reason to be in it."""
    data = to_json({"state": state, "reason": reason, "message": text})
    append_events(connection, job_id, [(at_us, attempt, "state", data)])
