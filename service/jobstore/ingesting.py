"""An attempt's records into rows, exactly once: one chunk and the cursor's move are one write.

A result carries the number of its attempt. One that comes late, from an attempt that is over, is
kept under that number; it moves neither the job nor its progress.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Insert, Table, bindparam, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from service.errors import JobNotFound
from service.jobs import JobState
from service.jobstore.rows import to_us
from service.jobstore.schema import ARTIFACTS, ATTEMPTS, CHECKPOINTS, JOBS, POINTS, SERIES
from service.jobstore.writing import (
    MOVE_ATTEMPT,
    OF_JOB,
    append_events,
    insert_if_absent,
    locked_job,
)
from workers.events import (
    ArtifactRecord,
    CheckpointRecord,
    CheckpointRemovedRecord,
    FirstStepRecord,
    LogRecord,
    MetricsRecord,
    ProgressRecord,
    Record,
    StartedRecord,
)

_ATTEMPT = select(ATTEMPTS).where(
    ATTEMPTS.c.job_id == bindparam("of_job"), ATTEMPTS.c.number == bindparam("of_attempt")
)
_MOVE_JOB = update(JOBS).where(OF_JOB)
# A resumed run also thins what the attempts before it have left.
_REMOVE = update(CHECKPOINTS).where(
    CHECKPOINTS.c.job_id == bindparam("of_job"),
    CHECKPOINTS.c.attempt <= bindparam("of_attempt"),
    CHECKPOINTS.c.id == bindparam("of_id"),
)
_SERIES = select(SERIES.c.name, SERIES.c.id).where(SERIES.c.job_id == bindparam("of_job"))
_ADD_SERIES = insert(SERIES)


def ingest(
    connection: Connection, job_id: str, attempt: int, chunk: int, records: Sequence[Record]
) -> bool:
    """Take in one chunk and move the attempt's cursor past it; whether it was new.

    A chunk below the cursor is already in: nothing changes. Raises ValueError for a gap, and
    JobNotFound for an unknown attempt.
    """
    job = locked_job(connection, job_id)
    of_attempt = {"of_job": job_id, "of_attempt": attempt}
    stored = connection.execute(_ATTEMPT, of_attempt).first()
    if stored is None:
        raise JobNotFound(f"job {job_id} has no attempt {attempt}")
    if chunk < stored.next_chunk:
        return False
    if chunk > stored.next_chunk:
        raise ValueError(f"chunk {chunk} of {job_id} came where {stored.next_chunk} is next")
    moved: dict[str, Any] = {"next_chunk": chunk + 1}
    progress: dict[str, Any] = {}
    for record in records:
        moved.update(_of_attempt(record))
        progress = _progress(record, {**stored._mapping, **moved}) or progress
        if not isinstance(record, LogRecord):  # that of a lost attempt comes in later
            moved["heard_us"] = to_us(record.at)
        _store_file(connection, job_id, attempt, record)
    if progress:
        moved["last_step"] = progress["step"]
    connection.execute(MOVE_ATTEMPT, {**moved, **of_attempt})
    if progress and job.attempt == attempt and job.state == JobState.RUNNING.value:
        connection.execute(_MOVE_JOB, {**progress, "of_job": job_id})
    _store_points(connection, job_id, attempt, records)
    events = [
        (to_us(r.at), attempt, r.kind, r.model_dump_json(exclude={"at", "kind"}))
        for r in records
        if not isinstance(r, ProgressRecord)
    ]
    if events:
        append_events(connection, job_id, events)
    return True


def _of_attempt(record: Record) -> dict[str, Any]:
    """What a record says about its attempt."""
    match record:
        case StartedRecord():
            return {
                "started_us": to_us(record.at),
                "pid": record.pid,
                "host": record.host,
                "resumed_from_step": record.resumed_from_step,
                "total_steps": record.total_steps,
                "rate_from_step": record.resumed_from_step or 0,
                "rate_from_us": to_us(record.at),
            }
        case FirstStepRecord():
            # The first step alone takes as long as many: the rate counts from its end.
            return {
                "first_step_us": to_us(record.at),
                "rate_from_step": record.step,
                "rate_from_us": to_us(record.at),
            }
        case ProgressRecord(peak_rss_bytes=int(peak)):
            return {"peak_rss_bytes": peak}
        case _:
            return {}


def _progress(record: Record, attempt: dict[str, Any]) -> dict[str, Any] | None:
    """The job's progress after the record, where it tells one."""
    total = attempt["total_steps"]
    match record:
        case StartedRecord():
            step = record.resumed_from_step or 0
            epoch = record.resumed_from_epoch
            if epoch is None:
                epoch = step / record.steps_per_epoch
        case ProgressRecord() | MetricsRecord() | CheckpointRecord():
            step, epoch = record.step, record.epoch
        case _:
            return None
    if total is None:
        return None
    return {
        "step": step,
        "total_steps": total,
        "epoch": epoch,
        "eta_s": _eta_s(record.at, step, attempt),
    }


def _eta_s(at: datetime, step: int, attempt: dict[str, Any]) -> float | None:
    """Seconds to the end at the attempt's mean rate so far."""
    done = step - attempt["rate_from_step"]
    elapsed_s = (to_us(at) - attempt["rate_from_us"]) / 1e6
    if done <= 0 or elapsed_s <= 0:
        return None
    return float(max(attempt["total_steps"] - step, 0) * elapsed_s / done)


def _store_file(connection: Connection, job_id: str, attempt: int, record: Record) -> None:
    match record:
        case CheckpointRecord():
            content = record.model_dump(exclude={"at", "kind", "metrics"})
            metrics = record.model_dump_json(include={"metrics"})
            row = {
                **content,
                "metrics": metrics[len('{"metrics":') : -1],
                "has_train_state": True,
                "is_removed": False,
            }
            _insert_file(connection, CHECKPOINTS, job_id, attempt, record.at, row)
        case ArtifactRecord():
            row = record.model_dump(exclude={"at", "kind"})
            _insert_file(connection, ARTIFACTS, job_id, attempt, record.at, row)
        case CheckpointRemovedRecord():
            removed: dict[str, Any] = {"has_train_state": False}
            if record.what == "all":
                removed["is_removed"] = True
            of_id = {"of_job": job_id, "of_attempt": attempt, "of_id": record.id}
            connection.execute(_REMOVE, {**removed, **of_id})
        case _:
            pass


def _insert_file(
    connection: Connection,
    table: Table,
    job_id: str,
    attempt: int,
    at: datetime,
    row: dict[str, Any],
) -> None:
    # A key of the artifact store is never rewritten, so the first record of a file is right.
    insert_if_absent(
        connection, table, {**row, "job_id": job_id, "attempt": attempt, "created_us": to_us(at)}
    )


def _store_points(
    connection: Connection, job_id: str, attempt: int, records: Sequence[Record]
) -> None:
    metrics = [record for record in records if isinstance(record, MetricsRecord)]
    names = {name for record in metrics for name in record.values}
    if not names:
        return
    series = _series(connection, job_id, names)
    # Two records of one step: the later one is what is known of it.
    points = {
        (series[name], attempt, record.step): {
            "series_id": series[name],
            "attempt": attempt,
            "step": record.step,
            "epoch": record.epoch,
            "value": None if value != value else value,
            "at_us": to_us(record.at),
        }
        for record in metrics
        for name, value in record.values.items()
    }
    if connection.dialect.name != "postgresql":
        connection.execute(_REPLACE_ON_SQLITE, list(points.values()))
        return
    columns = {
        column.name: [point[column.name] for point in points.values()] for column in POINTS.columns
    }
    connection.execute(_REPLACE_ON_POSTGRESQL, columns)


def _replacing(points: sqlite.Insert | postgresql.Insert) -> Insert:
    """Those of the same step give way."""
    return points.on_conflict_do_update(
        index_elements=list(POINTS.primary_key),
        set_={name: points.excluded[name] for name in ("epoch", "value", "at_us")},
    )


_REPLACE_ON_SQLITE = _replacing(sqlite.insert(POINTS))
# A column is one array there, so that all points are one message.
_REPLACE_ON_POSTGRESQL = _replacing(
    postgresql.insert(POINTS).from_select(
        POINTS.columns.keys(),
        select(
            *(
                func.unnest(bindparam(column.name, type_=postgresql.ARRAY(column.type)))
                for column in POINTS.columns
            )
        ),
    )
)


def _series(connection: Connection, job_id: str, names: set[str]) -> dict[str, int]:
    """The numbers of the job's series, made where they are missing."""

    def known() -> dict[str, int]:
        rows = connection.execute(_SERIES, {"of_job": job_id}).all()
        return {row.name: row.id for row in rows}

    found = known()
    missing = names - found.keys()
    if missing:
        added = [{"job_id": job_id, "name": name} for name in sorted(missing)]
        connection.execute(_ADD_SERIES, added)
        found = known()
    return found
