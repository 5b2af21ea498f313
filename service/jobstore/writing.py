"""What every write shares: the clock, the lock on a job's row, the numbering of events."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row, Table, UpdateBase, bindparam, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from service.errors import JobNotFound
from service.jobs import Job
from service.jobstore.rows import to_job, to_json, to_us
from service.jobstore.schema import ATTEMPTS, EVENTS, JOBS

# Statements of the paths that each chunk of each attempt takes are made once: making one takes
# longer than SQLite needs to carry it out. Values that stand for no column are called of_...;
# where one is named for a column that does not exist, SQLAlchemy drops it without a word.
OF_JOB = JOBS.c.id == bindparam("of_job")
MOVE_ATTEMPT = update(ATTEMPTS).where(
    ATTEMPTS.c.job_id == bindparam("of_job"), ATTEMPTS.c.number == bindparam("of_attempt")
)
_LOCKED = select(JOBS).where(OF_JOB, JOBS.c.deleted_us.is_(None)).with_for_update()
_CHANGE = update(JOBS).where(OF_JOB).returning(JOBS)
_NUMBER = (
    update(JOBS)
    .where(OF_JOB)
    .values(last_seq=JOBS.c.last_seq + bindparam("of_count"))
    .returning(JOBS.c.last_seq)
)
_APPEND = insert(EVENTS)


def now_us() -> int:
    """Microseconds since 1970, now."""
    return to_us(datetime.now(UTC))


def insert_if_absent(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert the row unless its key is taken; whether it was inserted.

    On PostgreSQL a writer of the same key is waited for, so the answer holds.
    """
    statement = _insertion_if_absent(table, connection.dialect.name)
    return connection.execute(statement, dict(row)).first() is not None


@cache
def _insertion_if_absent(table: Table, dialect_name: str) -> UpdateBase:
    dialect = postgresql if dialect_name == "postgresql" else sqlite
    # Not by the count of rows, which the driver of PostgreSQL does not always tell.
    insertion: UpdateBase = dialect.insert(table).on_conflict_do_nothing()
    return insertion.returning(*table.primary_key)


def locked_job(connection: Connection, job_id: str) -> Row[Any]:
    """The job's row, which nobody else changes until the transaction ends; JobNotFound."""
    row = connection.execute(_LOCKED, {"of_job": job_id}).first()
    if row is None:
        raise JobNotFound(f"there is no job {job_id}; GET /v1/jobs lists them")
    return row


def changed(
    connection: Connection, row: Row[Any], values: Mapping[str, Any], at_us: int | None = None
) -> Job:
    """A locked job's next version, with these values."""
    next_version = {"version": row.version + 1, "updated_us": at_us or now_us()}
    stored = connection.execute(_CHANGE, {**values, **next_version, "of_job": row.id}).one()
    return to_job(stored)


def append_events(
    connection: Connection, job_id: str, events: Sequence[tuple[int, int, str, str]]
) -> None:
    """Append (at_us, attempt, kind, data) to the job's events.

    The update locks the job's row, so that the numbers of concurrent writers have no gaps.
    """
    numbered = {"of_job": job_id, "of_count": len(events)}
    last = connection.execute(_NUMBER, numbered).scalar_one()
    rows = [
        {"job_id": job_id, "seq": seq, "at_us": at, "attempt": attempt, "kind": kind, "data": data}
        for seq, (at, attempt, kind, data) in enumerate(events, last - len(events) + 1)
    ]
    if rows:
        connection.execute(_APPEND, rows)


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
