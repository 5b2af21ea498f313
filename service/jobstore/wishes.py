"""What users wish of a job: cancel, pause, resume, retry. Each function runs in one transaction.

Of a running job only the wish is stored, and the watcher carries it out. A job that waits has
nothing that must end first, so it moves in the same step. A wish that is fulfilled, or will be,
is stored no second time: asking twice is safe.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, select

from service.errors import StateConflict
from service.jobs import TRANSITIONS, Job, JobState, Limits, Reason
from service.jobstore.rows import to_job
from service.jobstore.schema import ATTEMPTS
from service.jobstore.writing import append_state_event, changed, locked_job, now_us


def request_cancel(connection: Connection, job_id: str) -> Job:
    """Wish for the end, which beats a pause; raises StateConflict where it comes too late."""
    row = locked_job(connection, job_id)
    match JobState(row.state):
        case JobState.SUCCEEDED | JobState.FAILED:
            message = f"the job has {row.state}, so there is nothing left to cancel"
            raise StateConflict(message, row.state)
        case JobState.PAUSED:
            wish = {"cancel_requested": True}
            return _moved(connection, row, JobState.CANCELLED, Reason.CANCELLED, wish)
        case JobState.CANCELLED:
            return to_job(row)
        case JobState.QUEUED | JobState.RUNNING:
            if row.cancel_requested:
                return to_job(row)
            return changed(connection, row, {"cancel_requested": True, "pause_requested": False})


def cancel_waiting(connection: Connection, job_id: str) -> Job:
    """As :func:`request_cancel`, and what waits has ended at once: in the same transaction as the
    study that it is a trial of, so that a retry of that finds it ended."""
    row = locked_job(connection, job_id)
    if row.state != JobState.QUEUED:
        return request_cancel(connection, job_id)
    wish = {"cancel_requested": True}
    return _moved(connection, row, JobState.CANCELLED, Reason.CANCELLED, wish)


def request_pause(connection: Connection, job_id: str) -> Job:
    """Wish for a pause; a queued job has it at once. Raises StateConflict."""
    row = locked_job(connection, job_id)
    _refuse_the_cancelled(row)
    match JobState(row.state):
        case JobState.SUCCEEDED | JobState.FAILED | JobState.CANCELLED:
            message = f"the job has {ended_how(row)}, so there is nothing left to pause"
            raise StateConflict(message, row.state)
        case JobState.PAUSED:
            return to_job(row)
        case JobState.QUEUED:
            return _moved(connection, row, JobState.PAUSED, Reason.PAUSED, {})
        case JobState.RUNNING:
            if row.pause_requested:
                return to_job(row)
            return changed(connection, row, {"pause_requested": True})


def resume(connection: Connection, job_id: str) -> Job:
    """Let a paused job go on, or take the wish to pause back; raises StateConflict."""
    row = locked_job(connection, job_id)
    _refuse_the_cancelled(row)
    match JobState(row.state):
        case JobState.SUCCEEDED | JobState.FAILED | JobState.CANCELLED:
            message = f"the job has {ended_how(row)}; " + (
                "it cannot go on" if row.state == JobState.SUCCEEDED else "retry it instead"
            )
            raise StateConflict(message, row.state)
        case JobState.PAUSED:
            return _moved(connection, row, JobState.QUEUED, Reason.RESUMED, {})
        case JobState.QUEUED | JobState.RUNNING:
            if not row.pause_requested:
                return to_job(row)
            return changed(connection, row, {"pause_requested": False})


def retry(connection: Connection, job_id: str, limits: Limits | None) -> Job:
    """Let a failed or cancelled job go on as a new attempt; raises StateConflict.

    Its number is given in this step, so that nothing of an older attempt is believed any more;
    the attempts below it no longer count against the limits. Those of ``limits`` that are set
    replace the job's.
    """
    row = locked_job(connection, job_id)
    match JobState(row.state):
        case JobState.SUCCEEDED:
            raise StateConflict("the job has succeeded; fork it to train on", row.state)
        case JobState.PAUSED:
            raise StateConflict("the job is paused; resume it instead", row.state)
        case JobState.QUEUED | JobState.RUNNING:
            _refuse_the_cancelled(row)
            is_retried = row.counts_from > 0
            if not is_retried:
                raise StateConflict(f"the job is {row.state}; there is nothing to retry", row.state)
            if _changed_limits(row, limits) != to_job(row).limits:
                message = f"the job is {row.state} with other limits; cancel it to change them"
                raise StateConflict(message, row.state)
            return to_job(row)
        case JobState.FAILED | JobState.CANCELLED:
            is_used = connection.execute(
                select(ATTEMPTS.c.number).where(
                    ATTEMPTS.c.job_id == job_id, ATTEMPTS.c.number == row.attempt
                )
            ).first()
            number = row.attempt + 1 if is_used or row.attempt == 0 else row.attempt
            values = {
                "attempt": number,
                "counts_from": number,
                "cancel_requested": False,
                "limits": _changed_limits(row, limits).model_dump_json(),
            }
            return _moved(connection, row, JobState.QUEUED, Reason.RETRIED, values)


def _changed_limits(row: Row[Any], limits: Limits | None) -> Limits:
    changes = {} if limits is None else limits.model_dump(exclude_unset=True)
    return to_job(row).limits.model_copy(update=changes)


def _refuse_the_cancelled(row: Row[Any]) -> None:
    if row.cancel_requested and row.state in (JobState.QUEUED, JobState.RUNNING):
        raise StateConflict("the job is being cancelled, which cannot be taken back", row.state)


def ended_how(row: Row[Any]) -> str:
    """What a job or study has: succeeded, failed, or been cancelled."""
    return "been cancelled" if row.state == JobState.CANCELLED else str(row.state)


_MESSAGES = {
    Reason.CANCELLED: "Cancelled while it waited.",
    Reason.PAUSED: "Paused while it waited; resume lets it go on.",
    Reason.RESUMED: "Resumed; it goes on from its last checkpoint as soon as there is room.",
    Reason.RETRIED: "Retried; it goes on from its last checkpoint as soon as there is room.",
}


def _moved(
    connection: Connection,
    row: Row[Any],
    to: JobState,
    reason: Reason,
    values: Mapping[str, Any],
) -> Job:
    """Leave the state in the user's own step; wishes to pause and back-off end with it."""
    assert to in TRANSITIONS[JobState(row.state)]
    at_us, message = now_us(), _MESSAGES[reason]
    moved = {
        "state": to.value,
        "reason": reason.value,
        "message": message,
        "pause_requested": False,
        "not_before_us": None,
        "ended_us": at_us if to is JobState.CANCELLED else None,
        **values,
    }
    job = changed(connection, row, moved, at_us)
    append_state_event(connection, job.id, at_us, job.attempt, to, reason, message)
    return job
