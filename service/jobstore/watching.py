"""What the watcher writes: each change names the state that it leaves. One transaction each.

A change is a compare-and-set on (id, state, attempt): an attempt that is no longer the job's
changes nothing.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, bindparam, insert, update

from service.errors import StateConflict
from service.jobs import BY_STUDY, FINAL_STATES, TRANSITIONS, Attempt, Job, JobState, Reason
from service.jobstore.rows import attempt_row, to_job, to_us
from service.jobstore.schema import ATTEMPTS, JOBS
from service.jobstore.writing import MOVE_ATTEMPT, OF_JOB, append_state_event, locked_job, now_us
from workers.events import Exit

# See :mod:`service.jobstore.writing`.
_COMPARED = and_(
    OF_JOB,
    JOBS.c.state == bindparam("of_state"),
    JOBS.c.attempt == bindparam("of_attempt"),
    JOBS.c.deleted_us.is_(None),
)
_WISHES_COMPARED = and_(
    JOBS.c.cancel_requested == bindparam("of_cancel"),
    JOBS.c.pause_requested == bindparam("of_pause"),
)
_SET = update(JOBS).where(_COMPARED).values(version=JOBS.c.version + 1).returning(JOBS)
_SET_WITH_WISHES = _SET.where(_WISHES_COMPARED)
_BEGIN_ATTEMPT = insert(ATTEMPTS)


def start_attempt(
    connection: Connection, job: Job, attempt: Attempt, reason: Reason, message: str
) -> Job:
    """Queued -> running, with the next attempt; raises StateConflict if it is not queued."""
    # A retry has given its number already; that no attempt has it yet, is for the primary key.
    if attempt.job_id != job.id or attempt.number not in (job.attempt, job.attempt + 1):
        raise ValueError(f"attempt {attempt.number} does not follow attempt {job.attempt}")
    if job.state is not JobState.QUEUED:
        raise StateConflict(f"a {job.state} job cannot be started", job.state)
    at_us = now_us()
    values = {
        "state": JobState.RUNNING.value,
        "reason": reason.value,
        "message": message,
        "attempt": attempt.number,
        "not_before_us": None,
    }
    changed = _compare_and_set(connection, job, values, at_us)
    connection.execute(_BEGIN_ATTEMPT, attempt_row(attempt))
    append_state_event(connection, job.id, at_us, attempt.number, JobState.RUNNING, reason, message)
    return changed


def explain(connection: Connection, job: Job, reason: Reason, message: str) -> Job:
    """A new reason or message for the same state; only a new reason makes a new version."""
    row = locked_job(connection, job.id)
    if (row.state, row.attempt) != (job.state, job.attempt):
        raise _conflict(row.state, job)
    if row.reason == reason:
        if row.message != message:
            connection.execute(update(JOBS).where(JOBS.c.id == job.id).values(message=message))
            row = locked_job(connection, job.id)
        return to_job(row)
    at_us = now_us()
    changed = _compare_and_set(connection, job, {"reason": reason, "message": message}, at_us)
    append_state_event(connection, job.id, at_us, job.attempt, job.state, reason, message)
    return changed


def note_process(
    connection: Connection, job_id: str, attempt: int, pid: int | None, host: str | None
) -> None:
    """Write down where an attempt's process is."""
    process = {"pid": pid, "host": host}
    connection.execute(MOVE_ATTEMPT, {**process, "of_job": job_id, "of_attempt": attempt})


def settle(
    connection: Connection,
    job: Job,
    to: JobState,
    reason: Reason,
    message: str,
    attempt_reason: Reason | None,
    attempt_message: str | None,
    attempt_exit: Exit | None,
    not_before: datetime | None,
) -> Job:
    """Leave the job's state for another; a running job's attempt ends with it.

    What becomes of a running job follows from the wishes that the caller has seen, so these are
    compared too. What has ended or is paused, is left by a wish alone, or by the word of a study.
    """
    by_study = to is JobState.SUCCEEDED and reason in BY_STUDY
    waits = job.state is JobState.QUEUED or (job.state is JobState.PAUSED and by_study)
    if not (waits or job.state is JobState.RUNNING) or (
        to not in TRANSITIONS[job.state]
        or to is JobState.RUNNING
        or (waits and to is JobState.SUCCEEDED and not by_study)
    ):
        raise StateConflict(f"a {job.state} job cannot be settled as {to}", job.state)
    at_us = now_us()
    values = {
        "state": to.value,
        "reason": reason.value,
        "message": message,
        "ended_us": at_us if to in FINAL_STATES else None,
        "not_before_us": None if not_before is None else to_us(not_before),
    }
    if to is not JobState.QUEUED:
        values["pause_requested"] = False
    changed = _compare_and_set(
        connection, job, values, at_us, compare_wishes=job.state is JobState.RUNNING
    )
    if job.state is JobState.RUNNING:
        ended = {
            "ended_us": at_us,
            "reason": (attempt_reason or reason).value,
            "message": message if attempt_message is None else attempt_message,
            "exit": None if attempt_exit is None else attempt_exit.model_dump_json(),
        }
        of_attempt = {"of_job": job.id, "of_attempt": job.attempt}
        connection.execute(MOVE_ATTEMPT, {**ended, **of_attempt})
    append_state_event(connection, job.id, at_us, job.attempt, to, reason, message)
    return changed


def _compare_and_set(
    connection: Connection,
    job: Job,
    values: Mapping[str, Any],
    at_us: int,
    *,
    compare_wishes: bool = False,
) -> Job:
    seen: dict[str, Any] = {
        "of_job": job.id,
        "of_state": job.state.value,
        "of_attempt": job.attempt,
    }
    if compare_wishes:
        seen |= {"of_cancel": job.cancel_requested, "of_pause": job.pause_requested}
    statement = _SET_WITH_WISHES if compare_wishes else _SET
    row = connection.execute(statement, {**values, "updated_us": at_us, **seen}).first()
    if row is None:
        raise _conflict(locked_job(connection, job.id).state, job)
    return to_job(row)


def _conflict(state: str, job: Job) -> StateConflict:
    if state == job.state:
        return StateConflict(f"the job's attempt or wishes have changed; it is {state}", state)
    return StateConflict(
        f"the job is no longer {job.state} in attempt {job.attempt}: it is {state}", state
    )
