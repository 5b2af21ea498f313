"""Questions about one job or about the queue. Each function runs in one transaction."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, Literal

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Connection,
    Executable,
    Select,
    and_,
    bindparam,
    func,
    not_,
    or_,
    select,
    text,
)

from service.errors import JobNotFound
from service.jobs import (
    FINAL_STATES,
    ArtifactInfo,
    Attempt,
    CheckpointInfo,
    Job,
    JobEvent,
    JobState,
    MetricPoint,
    Reason,
)
from service.jobstore.rows import (
    from_us,
    to_artifact,
    to_attempt,
    to_checkpoint,
    to_event,
    to_job,
    to_points,
    to_us,
)
from service.jobstore.schema import (
    ARTIFACTS,
    ATTEMPTS,
    CHECKPOINTS,
    EVENTS,
    HAS_WISH,
    INSTALLATION,
    JOBS,
    POINTS,
    SERIES,
)

SEQ_MAX = 2**63 - 1
_WISHED = select(JOBS).where(JOBS.c.state == bindparam("state"), HAS_WISH)
# By the order in which its indexes were made, which differs, SQLite takes another one of the state
# at times, and looks at all that is queued.
_WISHED_ON_SQLITE = text(
    f"SELECT {', '.join(column.name for column in JOBS.c)} FROM jobs INDEXED BY jobs_by_wish "
    "WHERE state = :state AND (cancel_requested = 1 OR pause_requested = 1)"
).columns(*JOBS.c)
IS_NO_TRIAL = JOBS.c.study_id.is_(None)  # a trial starts within what its study holds


def is_due(now_us: int | BindParameter[int]) -> ColumnElement[bool]:
    """Whether a queued job waits for no back-off."""
    return or_(JOBS.c.not_before_us.is_(None), JOBS.c.not_before_us <= now_us)


# See :mod:`service.jobstore.writing`. What a deleted job has is nobody's: _SHOWN is the id of_job
# as long as the job is not deleted, else NULL.
_JOB = select(JOBS).where(JOBS.c.id == bindparam("of_job"), JOBS.c.deleted_us.is_(None))
_SHOWN = _JOB.with_only_columns(JOBS.c.id).scalar_subquery()
_ATTEMPTS = select(ATTEMPTS).where(ATTEMPTS.c.job_id == _SHOWN).order_by(ATTEMPTS.c.number)
IN_TURN = (JOBS.c.priority.desc(), JOBS.c.created_us, JOBS.c.id)
_AT_WORK = select(JOBS).where(JOBS.c.state == JobState.RUNNING.value).order_by(*IN_TURN)
_RUNNING = {
    None: _AT_WORK,
    True: _AT_WORK.where(not_(IS_NO_TRIAL)),
    False: _AT_WORK.where(IS_NO_TRIAL),
}
_EXECUTORS = (
    select(ATTEMPTS.c.executor_id)
    .join(JOBS, and_(ATTEMPTS.c.job_id == JOBS.c.id, ATTEMPTS.c.number == JOBS.c.attempt))
    .where(JOBS.c.state == JobState.RUNNING.value)
)
_STARTABLE = (
    select(JOBS)
    .where(
        JOBS.c.state == JobState.QUEUED.value,
        IS_NO_TRIAL,
        is_due(bindparam("of_now_us")),
    )
    .order_by(*IN_TURN)
)
_FIRST_STARTABLE = _STARTABLE.limit(bindparam("of_most"))
_CHECKPOINTS = (
    select(CHECKPOINTS)
    .where(CHECKPOINTS.c.job_id == _SHOWN, CHECKPOINTS.c.is_removed.is_(False))
    .order_by(CHECKPOINTS.c.attempt, CHECKPOINTS.c.created_us)
)
_ARTIFACTS = select(ARTIFACTS).where(ARTIFACTS.c.job_id == _SHOWN).order_by(ARTIFACTS.c.attempt)
_METRIC_NAMES = select(SERIES.c.name).where(SERIES.c.job_id == _SHOWN).order_by(SERIES.c.name)
_LAST_SEQ = _JOB.with_only_columns(JOBS.c.last_seq)


def job(connection: Connection, job_id: str) -> Job:
    """The job; raises JobNotFound."""
    row = connection.execute(_JOB, {"of_job": job_id}).first()
    if row is None:
        raise JobNotFound(f"there is no job {job_id}; GET /v1/jobs lists them")
    return to_job(row)


def attempts(connection: Connection, job_id: str) -> list[Attempt]:
    """The job's attempts, oldest first."""
    return [to_attempt(row) for row in connection.execute(_ATTEMPTS, {"of_job": job_id})]


def running(connection: Connection, *, trials: bool | None) -> list[Job]:
    """The jobs that run, trials of studies or all others, or None for both, in the order in which
    they were to start."""
    return [to_job(row) for row in connection.execute(_RUNNING[trials])]


def executors_at_work(connection: Connection) -> frozenset[str]:
    """The executors of the attempts that running jobs are at."""
    return frozenset(connection.execute(_EXECUTORS).scalars())


def startable(connection: Connection, limit: int | None, now_us: int) -> list[Job]:
    """The queued jobs that may start now, in the order in which they do: those that wait for
    their back-off hold up nobody."""
    statement = _STARTABLE if limit is None else _FIRST_STARTABLE
    rows = connection.execute(statement, {"of_now_us": now_us, "of_most": limit})
    return [to_job(row) for row in rows]


def queued_with_wishes(connection: Connection) -> list[Job]:
    """The queued jobs that are to be cancelled or paused, wherever they stand."""
    is_sqlite = connection.dialect.name == "sqlite"
    asked: Executable = _WISHED_ON_SQLITE if is_sqlite else _WISHED
    return [to_job(row) for row in connection.execute(asked, {"state": JobState.QUEUED.value})]


def ahead_of(connection: Connection, job: Job, now_us: int) -> int:
    """How many queued jobs start before this one; those in their back-off do not."""
    queued = and_(JOBS.c.state == JobState.QUEUED.value, IS_NO_TRIAL)
    sooner = is_sooner(job.priority, to_us(job.created_at), job.id)
    counted = select(func.count()).select_from(JOBS).where(queued, sooner, is_due(now_us))
    return connection.execute(counted).scalar_one()


def is_sooner(priority: int, created_us: int, job_id: str) -> ColumnElement[bool]:
    """Whether a job's turn comes before that of a job with these: priority, then age."""
    older = or_(
        JOBS.c.created_us < created_us, and_(JOBS.c.created_us == created_us, JOBS.c.id < job_id)
    )
    return or_(JOBS.c.priority > priority, and_(JOBS.c.priority == priority, older))


def forks_of(connection: Connection, job_id: str, limit: int | None) -> list[str]:
    """Ids of the jobs that were forked from a job, oldest first."""
    return list(
        connection.execute(
            select(JOBS.c.id)
            .where(JOBS.c.parent_job_id == job_id, JOBS.c.deleted_us.is_(None))
            .order_by(JOBS.c.created_us, JOBS.c.id)
            .limit(limit)
        ).scalars()
    )


def oldest_queued_at(connection: Connection) -> datetime | None:
    """When the job that has been queued longest was submitted; None where none is queued."""
    queued = and_(JOBS.c.state == JobState.QUEUED.value, IS_NO_TRIAL)
    oldest = connection.execute(select(func.min(JOBS.c.created_us)).where(queued)).scalar()
    return None if oldest is None else from_us(oldest)


def count_by_state(connection: Connection) -> dict[JobState, int]:
    """How many jobs are in each state; every state is there."""
    rows = connection.execute(
        select(JOBS.c.state, func.count()).where(JOBS.c.deleted_us.is_(None)).group_by(JOBS.c.state)
    )
    counted = {JobState(row[0]): int(row[1]) for row in rows}
    return {state: counted.get(state, 0) for state in JobState}


def count_unfinished(connection: Connection) -> dict[tuple[JobState, Reason], int]:
    """How many jobs that have not ended there are for each state and reason that some have.

    Ended ones are left out: they are as many as were ever kept, and no index has their reasons.
    """
    of_state = JOBS.c.state.in_([state.value for state in JobState if state not in FINAL_STATES])
    rows = connection.execute(
        select(JOBS.c.state, JOBS.c.reason, func.count())
        .where(JOBS.c.deleted_us.is_(None), of_state)
        .group_by(JOBS.c.state, JOBS.c.reason)
    )
    return {(JobState(row[0]), Reason(row[1])): int(row[2]) for row in rows}


def events(
    connection: Connection,
    job_id: str,
    after: int,
    limit: int,
    kinds: Sequence[str] | None = None,
    attempt: int | None = None,
) -> list[JobEvent]:
    """The job's events with a number above ``after``, in order; None does not filter."""
    return _events(connection, job_id, "after", min(after, SEQ_MAX), limit, kinds, attempt)


def tail(connection: Connection, job_id: str, after: int, limit: int) -> tuple[Job, list[JobEvent]]:
    """The job and its events with a number above ``after``, in order; raises JobNotFound."""
    return job(connection, job_id), events(connection, job_id, after, limit)


def last_events(
    connection: Connection,
    job_id: str,
    before: int | None,
    limit: int,
    kinds: Sequence[str],
    attempt: int | None,
) -> list[JobEvent]:
    """The job's events of these kinds with a number below ``before``, the newest first."""
    seq = SEQ_MAX if before is None else min(before, SEQ_MAX)
    return _events(connection, job_id, "before", seq, limit, kinds, attempt)


_Side = Literal["after", "before"]


def _events(
    connection: Connection,
    job_id: str,
    side: _Side,
    seq: int,
    limit: int,
    kinds: Sequence[str] | None,
    attempt: int | None,
) -> list[JobEvent]:
    """The first events after a number, or the last ones before it, the newest first."""
    of: dict[str, Any] = {
        "of_job": job_id,
        "of_attempt": attempt,
        "of_seq": seq,
        "of_most": limit,
    }
    if kinds is not None:
        of["of_kinds"] = list(kinds)
    statement = _asked_events(side, kinds is not None, attempt is not None)
    return [to_event(row) for row in connection.execute(statement, of)]


@cache
def _asked_events(side: _Side, is_of_kinds: bool, is_of_attempt: bool) -> Select[Any]:
    wanted = select(EVENTS).where(EVENTS.c.job_id == _SHOWN).limit(bindparam("of_most"))
    if is_of_kinds:
        wanted = wanted.where(EVENTS.c.kind.in_(bindparam("of_kinds", expanding=True)))
    if is_of_attempt:
        wanted = wanted.where(EVENTS.c.attempt == bindparam("of_attempt"))
    if side == "after":
        return wanted.where(EVENTS.c.seq > bindparam("of_seq")).order_by(EVENTS.c.seq)
    return wanted.where(EVENTS.c.seq < bindparam("of_seq")).order_by(EVENTS.c.seq.desc())


def last_seq(connection: Connection, job_id: str) -> int:
    """The number of the job's last event; raises JobNotFound."""
    seq = connection.execute(_LAST_SEQ, {"of_job": job_id}).scalar()
    if seq is None:
        raise JobNotFound(f"there is no job {job_id}; GET /v1/jobs lists them")
    return int(seq)


def marks(connection: Connection, job_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    """The number of the last event and the version of each of these jobs that there is."""
    rows = connection.execute(
        select(JOBS.c.id, JOBS.c.last_seq, JOBS.c.version).where(
            JOBS.c.id.in_(job_ids), JOBS.c.deleted_us.is_(None)
        )
    )
    return {row.id: (row.last_seq, row.version) for row in rows}


def metric_names(connection: Connection, job_id: str) -> list[str]:
    """The names of the job's metrics, in the order of the alphabet."""
    return list(connection.execute(_METRIC_NAMES, {"of_job": job_id}).scalars())


def metrics(
    connection: Connection, job_id: str, names: Sequence[str] | None, at_most: int | None = None
) -> dict[str, list[MetricPoint]]:
    """The job's curves by name, each ordered by step; all of them where ``names`` is None.

    Of a curve with more than ``at_most`` points every k-th is read, and the last.
    """
    wanted = select(SERIES.c.id, SERIES.c.name).where(SERIES.c.job_id == _SHOWN)
    if names is not None:
        wanted = wanted.where(SERIES.c.name.in_(names))
    replaced = _replaced_beyond(connection, job_id)
    curves: dict[str, list[MetricPoint]] = {}
    for series in connection.execute(wanted.order_by(SERIES.c.name), {"of_job": job_id}).all():
        if len(replaced) <= 1:  # nothing can be replaced, and the order is that of the steps
            rows = connection.execute(_points(connection, series.id, _POINT, at_most))
            curves[series.name] = to_points(rows.all())
            continue
        rows = connection.execute(
            _points(connection, series.id, (POINTS.c.attempt, *_POINT), at_most)
        )
        by_step = {
            point[0]: point
            for attempt, *point in rows
            if point[0] <= replaced.get(attempt, SEQ_MAX)
        }
        curves[series.name] = to_points(by_step[step] for step in sorted(by_step))
    return curves


_POINT = (POINTS.c.step, POINTS.c.epoch, POINTS.c.value, POINTS.c.at_us)


def _points(
    connection: Connection, series_id: int, columns: Sequence[Column[Any]], at_most: int | None
) -> Select[Any]:
    """The points of a curve, thinned inside the database: a long run has millions."""
    order = (POINTS.c.attempt, POINTS.c.step)
    of_series = POINTS.c.series_id == series_id
    count = 0
    if at_most is not None:
        count = connection.execute(select(func.count()).where(of_series)).scalar() or 0
    if at_most is None or count <= at_most:
        return select(*columns).where(of_series).order_by(*order)
    stride = -(-count // at_most)
    number = func.row_number().over(order_by=order).label("number")
    numbered = select(*columns, number).where(of_series).subquery()
    return (
        select(*(numbered.c[column.name] for column in columns))
        .where((numbered.c.number % stride == 1) | (numbered.c.number == count))
        .order_by(numbered.c.number)
    )


def _replaced_beyond(connection: Connection, job_id: str) -> dict[int, int]:
    """For each attempt the least step from which a later one resumed, or began anew."""
    limits: dict[int, int] = {}
    limit = SEQ_MAX
    for attempt in reversed(attempts(connection, job_id)):
        limits[attempt.number] = limit
        # An attempt that never began has replaced nothing.
        if attempt.started_at is not None:
            limit = min(limit, attempt.resumed_from_step or 0)
    return limits


def checkpoints(connection: Connection, job_id: str) -> list[CheckpointInfo]:
    """The job's checkpoints by step; of two with one step, the later attempt's."""
    rows = connection.execute(_CHECKPOINTS, {"of_job": job_id})
    by_step = {row.step: to_checkpoint(row) for row in rows}
    return [by_step[step] for step in sorted(by_step)]


def artifacts(connection: Connection, job_id: str) -> list[ArtifactInfo]:
    """The job's artifacts by name; of two with one name, the later attempt's."""
    rows = connection.execute(_ARTIFACTS, {"of_job": job_id})
    by_name = {row.name: to_artifact(row) for row in rows}
    return [by_name[name] for name in sorted(by_name)]


def installation(connection: Connection) -> str:
    """The id of this database's installation."""
    found: str = connection.execute(select(INSTALLATION.c.id)).scalar_one()
    return found
