"""Deleting jobs: a mark first, and the rows last. Each function runs in one transaction.

A job with the mark is gone for everybody who asks. Its rows stay until its artifacts are removed,
so that a removal that was cut off is found and goes on.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, or_, select, tuple_, update

from service.custody import Custody
from service.errors import StateConflict, StudyChanged, StudyStateConflict, VersionConflict
from service.jobs import FINAL_STATES, Job, JobState
from service.jobstore.rows import to_job
from service.jobstore.schema import (
    ARTIFACTS,
    ATTEMPTS,
    CHECKPOINTS,
    EVENTS,
    IDEMPOTENCY_KEYS,
    JOBS,
    LABELS,
    POINTS,
    SERIES,
    STUDIES,
    STUDY_KEYS,
    TRIALS,
)
from service.jobstore.study_states import found
from service.jobstore.writing import locked_job, now_us

SECOND_US = 1_000_000


def delete_job(connection: Connection, job_id: str, expected_version: int | None) -> Job:
    """Mark a job that has ended as deleted; what it was.

    Raises JobNotFound, VersionConflict, and StateConflict for one that has not ended.
    """
    row = locked_job(connection, job_id)
    if expected_version is not None and row.version != expected_version:
        raise VersionConflict
    if row.study_id is not None:
        raise StateConflict(
            f"the job is a trial of {row.study_id}, and is kept as long as that", row.state
        )
    if row.state not in FINAL_STATES:
        raise StateConflict(
            f"the job is {row.state}; cancel it first, and delete it when it has ended", row.state
        )
    _mark(connection, [job_id])
    return to_job(row)


def expired(
    connection: Connection, keep_s: Mapping[JobState, float | None], limit: int
) -> list[str]:
    """Jobs that have ended longer ago than they are kept; their ids, at most so many.

    ``keep_s`` are the installation's seconds for each final state, None for ever.
    """
    ids: list[str] = []
    for condition in _expired(keep_s, now_us()):  # each has an index, which all together have not
        some = select(JOBS.c.id).where(condition).limit(limit - len(ids))
        ids += connection.execute(some).scalars()
    return ids


def delete_expired(
    connection: Connection, keep_s: Mapping[JobState, float | None], found: Sequence[str]
) -> list[str]:
    """Mark those of the jobs that are still to go; their ids."""
    rows = connection.execute(
        select(JOBS.c.id)
        .where(JOBS.c.id.in_(found), or_(*_expired(keep_s, now_us())))
        .with_for_update()
    )
    ids = list(rows.scalars())
    _mark(connection, ids)
    return ids


def _expired(keep_s: Mapping[JobState, float | None], now: int) -> Iterator[ColumnElement[bool]]:
    """The ways in which a job's time is over: its own, or the installation's for its state."""
    for state in sorted(FINAL_STATES):
        own, seconds = JOBS.c[f"keep_{state.value}_s"], keep_s.get(state)
        ended = and_(
            JOBS.c.deleted_us.is_(None), JOBS.c.state == state.value, JOBS.c.study_id.is_(None)
        )
        yield and_(ended, own.is_not(None), JOBS.c.ended_us + own * SECOND_US <= now)
        if seconds is not None:
            limit = now - int(seconds * SECOND_US)
            yield and_(ended, own.is_(None), JOBS.c.ended_us <= limit)


def delete_study(
    connection: Connection, study_id: str, expected_version: int | None
) -> tuple[str, ...]:
    """Mark a study that has ended as deleted, with its trials' jobs; the ids of these.

    Its row goes with the last of them. Raises StudyNotFound, StudyChanged, and StudyStateConflict
    for one that has not ended, or of which something still runs.
    """
    row = found(connection, study_id, locked=True)
    if expected_version is not None and row.version != expected_version:
        raise StudyChanged
    if row.state not in FINAL_STATES:
        raise StudyStateConflict(
            f"the study is {row.state}; cancel it first, and delete it when it has ended", row.state
        )
    jobs = connection.execute(
        select(JOBS.c.id, JOBS.c.state).where(
            JOBS.c.study_id == study_id, JOBS.c.deleted_us.is_(None)
        )
    ).all()
    busy = sum(job.state == JobState.RUNNING for job in jobs)
    if busy:
        raise StudyStateConflict(f"{busy} trial(s) of the study still run", row.state)
    connection.execute(delete(STUDY_KEYS).where(STUDY_KEYS.c.study_id == study_id))
    if jobs:
        marked = update(STUDIES).where(STUDIES.c.id == study_id).values(deleted_us=now_us())
        connection.execute(marked)
    else:
        connection.execute(delete(STUDIES).where(STUDIES.c.id == study_id))
    ids = tuple(job.id for job in jobs)
    _mark(connection, ids)
    return ids


def _mark(connection: Connection, job_ids: Sequence[str]) -> None:
    """The jobs are nobody's from here on; their labels and idempotency keys are free."""
    if not job_ids:
        return
    connection.execute(update(JOBS).where(JOBS.c.id.in_(job_ids)).values(deleted_us=now_us()))
    for table in (LABELS, IDEMPOTENCY_KEYS):
        connection.execute(delete(table).where(table.c.job_id.in_(job_ids)))


def is_referred_to() -> ColumnElement[bool]:
    """Whether another job needs a job's artifacts: the one place that says so.

    A fork whose checkpoint lies under its parent's prefix does; one that has a copy does not.
    """
    fork = JOBS.alias("fork")
    below = fork.c.parent_prefix.startswith("jobs/" + JOBS.c.id + "/", autoescape=False)
    return exists().where(fork.c.parent_job_id == JOBS.c.id, below, fork.c.id != JOBS.c.id)


def doomed(connection: Connection, limit: int) -> list[str]:
    """Deleted jobs whose artifacts and rows are to go, first deleted first."""
    rows = connection.execute(
        select(JOBS.c.id)
        .where(JOBS.c.deleted_us.is_not(None), ~is_referred_to())
        .order_by(JOBS.c.deleted_us)
        .limit(limit)
    )
    return list(rows.scalars())


def purge(connection: Connection, job_id: str, at_most: int) -> bool:
    """Remove some rows of a deleted job, few enough for others to write in between; whether the
    job's own row, the last of all, is gone."""
    condition = (JOBS.c.id == job_id, JOBS.c.deleted_us.is_not(None))
    if connection.execute(select(JOBS.c.id).where(*condition)).first() is None:
        return True
    series = connection.execute(select(SERIES.c.id).where(SERIES.c.job_id == job_id)).scalar()
    if series is not None:
        _purge_series(connection, series, at_most)
        return False
    first = connection.execute(
        select(EVENTS.c.seq).where(EVENTS.c.job_id == job_id).order_by(EVENTS.c.seq).limit(1)
    ).scalar()
    if first is not None:
        some = and_(EVENTS.c.job_id == job_id, EVENTS.c.seq < first + at_most)
        connection.execute(delete(EVENTS).where(some))
        return False
    _purge_trial(connection, job_id)
    connection.execute(delete(JOBS).where(*condition))
    return True


def _purge_trial(connection: Connection, job_id: str) -> None:
    """Remove the trial that a job is, with its results, and its deleted study with the last."""
    of_job = TRIALS.c.job_id == job_id
    study_id = connection.execute(select(TRIALS.c.study_id).where(of_job)).scalar()
    if study_id is None:
        return
    connection.execute(delete(TRIALS).where(of_job))
    others = exists().where(TRIALS.c.study_id == study_id)
    connection.execute(
        delete(STUDIES).where(STUDIES.c.id == study_id, STUDIES.c.deleted_us.is_not(None), ~others)
    )


def _purge_series(connection: Connection, series: int, at_most: int) -> None:
    """Remove the first points of a curve, and the curve with its last ones."""
    order: tuple[ColumnElement[Any], ...] = (POINTS.c.attempt, POINTS.c.step)
    some: ColumnElement[bool] = POINTS.c.series_id == series
    last = connection.execute(
        select(*order).where(some).order_by(*order).offset(at_most - 1).limit(1)
    ).first()
    if last is not None:
        some = and_(some, tuple_(*order) <= tuple_(*last))
    connection.execute(delete(POINTS).where(some))
    if last is None:
        connection.execute(delete(SERIES).where(SERIES.c.id == series))


def custody(connection: Connection, job_id: str) -> Custody | None:
    """What is known of a job's objects; None where no row knows the job at all."""
    job = connection.execute(select(JOBS.c.deleted_us).where(JOBS.c.id == job_id)).first()
    if job is None:
        return None
    ended = connection.execute(
        select(ATTEMPTS.c.number).where(
            ATTEMPTS.c.job_id == job_id, ATTEMPTS.c.ended_us.is_not(None)
        )
    ).scalars()
    kept = connection.execute(
        select(CHECKPOINTS.c.prefix, CHECKPOINTS.c.has_train_state).where(
            CHECKPOINTS.c.job_id == job_id, CHECKPOINTS.c.is_removed.is_(False)
        )
    )
    checkpoints = {row.prefix: bool(row.has_train_state) for row in kept}
    forked = select(JOBS.c.parent_prefix).where(JOBS.c.parent_job_id == job_id)
    checkpoints |= dict.fromkeys(connection.execute(forked).scalars(), True)
    files = connection.execute(select(ARTIFACTS.c.key).where(ARTIFACTS.c.job_id == job_id))
    return Custody(
        is_deleted=job.deleted_us is not None,
        ended=frozenset(ended),
        checkpoints=checkpoints,
        files=frozenset(files.scalars()),
    )
