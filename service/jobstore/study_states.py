"""What becomes of studies: starts, ends, wishes, extensions. Each runs in one transaction.

Each change is a compare-and-set on (id, state, attempt), as of jobs, and of a running study on its
version too; of that only the wish is stored, which its driver carries out.
"""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select, update

from service.errors import (
    FieldError,
    InvalidStudy,
    StudyChanged,
    StudyNotFound,
    StudyStateConflict,
)
from service.jobs import FINAL_STATES, JobState
from service.jobstore import wishes
from service.jobstore.schema import JOBS, STUDIES, TRIALS
from service.jobstore.study_rows import to_study
from service.jobstore.writing import now_us
from service.studies.ledger import STUDY_TRANSITIONS, Study, StudyReason
from service.studies.population import is_population
from service.studies.request import Budget

# See :mod:`service.jobstore.writing`.
OF_STUDY = STUDIES.c.id == bindparam("of_study")
_STUDY = select(STUDIES).where(OF_STUDY, STUDIES.c.deleted_us.is_(None))
_LOCKED = _STUDY.with_for_update()
_CHANGE = update(STUDIES).where(OF_STUDY).values(version=STUDIES.c.version + 1).returning(STUDIES)


def move(
    connection: Connection,
    study: Study,
    to: JobState,
    reason: StudyReason,
    message: str,
    values: Mapping[str, Any],
) -> Study:
    """Leave a study's state for another; raises StudyStateConflict."""
    if to not in STUDY_TRANSITIONS[study.state] or study.state in FINAL_STATES:
        raise StudyStateConflict(f"a {study.state} study cannot become {to}", study.state)
    moved = {
        **values,
        "state": to.value,
        "reason": reason.value,
        "message": message,
        "ended_us": now_us() if to in FINAL_STATES else None,
    }
    return compare_and_set(connection, study, moved)


def extend(
    connection: Connection,
    study_id: str,
    budget: Budget,
    expected_version: int | None,
    reserved_bytes: int | None,
) -> Study:
    """Raise the budget; a study that has succeeded goes on, queued.

    Raises StudyChanged, InvalidStudy for a budget that is smaller, StudyStateConflict for one
    that has failed or was cancelled.
    """
    row = found(connection, study_id, locked=True)
    if expected_version is not None and row.version != expected_version:
        raise StudyChanged
    if row.state in (JobState.FAILED, JobState.CANCELLED):
        raise StudyStateConflict(
            f"the study has {wishes.ended_how(row)}; retry it instead", row.state
        )
    study = to_study(row)
    lowered = _lowered(study.request.budget, budget)
    if is_population(study.request) and budget.trials > study.request.budget.trials:
        wrong = "is the size of the population, which nobody can join later; submit a new study"
        lowered = (FieldError("/budget/trials", wrong),)
    if lowered:
        raise InvalidStudy(f"{lowered[0].pointer} {lowered[0].message}.", lowered)
    if budget == study.request.budget:
        return study
    request = study.request.model_copy(update={"budget": budget})
    values: dict[str, Any] = {"request": request.model_dump_json()}
    if reserved_bytes is not None:
        values["reserved_bytes"] = reserved_bytes
    if study.state is JobState.SUCCEEDED:
        values |= {
            "state": JobState.QUEUED.value,
            "reason": StudyReason.EXTENDED.value,
            "message": _MESSAGES[StudyReason.EXTENDED],
            "ended_us": None,
        }
    return _changed(connection, study_id, values)


def request_cancel(connection: Connection, study_id: str) -> Study:
    """Wish for the end; what does not run ends at once, and its trials with it. Raises
    StudyStateConflict."""
    cancelled = {"cancel_requested": True, "pause_requested": False}
    row = found(connection, study_id, locked=True)
    match JobState(row.state):
        case JobState.SUCCEEDED | JobState.FAILED:
            raise StudyStateConflict(f"the study has {row.state} already", row.state)
        case JobState.CANCELLED:
            return to_study(row)
        case JobState.RUNNING:
            return (
                to_study(row) if row.cancel_requested else _changed(connection, study_id, cancelled)
            )
        case JobState.QUEUED | JobState.PAUSED:
            for job_id in _trials_in(connection, study_id, set(JobState) - FINAL_STATES):
                wishes.cancel_waiting(connection, job_id)
            values = _state(JobState.CANCELLED, StudyReason.CANCELLED)
            return _changed(connection, study_id, {**cancelled, **values})


def request_pause(connection: Connection, study_id: str) -> Study:
    """Wish for a pause; a queued study has it at once. Raises StudyStateConflict."""
    row = found(connection, study_id, locked=True)
    _refuse_the_ended(row, "pause")
    if row.state == JobState.PAUSED or row.pause_requested:
        return to_study(row)
    if row.state == JobState.RUNNING:
        return _changed(connection, study_id, {"pause_requested": True})
    values = _state(JobState.PAUSED, StudyReason.PAUSED)
    return _changed(connection, study_id, values)


def resume(connection: Connection, study_id: str) -> Study:
    """Paused -> queued, or the wish to pause taken back; raises StudyStateConflict."""
    row = found(connection, study_id, locked=True)
    _refuse_the_ended(row, "resume")
    if row.state == JobState.PAUSED:
        values = _state(JobState.QUEUED, StudyReason.RESUMED)
        return _changed(connection, study_id, values)
    if not row.pause_requested:
        return to_study(row)
    return _changed(connection, study_id, {"pause_requested": False})


def retry(connection: Connection, study_id: str) -> Study:
    """Failed or cancelled -> queued, once, with the trials that were cancelled, and those that
    have failed where no trial had a result; raises StudyStateConflict."""
    row = found(connection, study_id, locked=True)
    if (row.state, row.reason) == (JobState.QUEUED, StudyReason.RETRIED):
        return to_study(row)
    if row.state not in (JobState.FAILED, JobState.CANCELLED):
        raise StudyStateConflict(f"the study is {row.state}; nothing to retry", row.state)
    left = {JobState.CANCELLED}
    if row.reason == StudyReason.NO_RESULT:
        left.add(JobState.FAILED)
    for job_id in _trials_in(connection, study_id, left):
        wishes.retry(connection, job_id, None)
    values = _state(JobState.QUEUED, StudyReason.RETRIED)
    return _changed(connection, study_id, {**values, "cancel_requested": False})


def found(connection: Connection, study_id: str, *, locked: bool = False) -> Row[Any]:
    """The study's row, which nobody else changes if it is locked; raises StudyNotFound."""
    row = connection.execute(_LOCKED if locked else _STUDY, {"of_study": study_id}).first()
    if row is None:
        raise StudyNotFound(f"there is no study {study_id}; GET /v1/studies lists them")
    return row


def _trials_in(connection: Connection, study_id: str, states: Collection[JobState]) -> list[str]:
    """The jobs of the study's trials in these states, in the order of their numbers."""
    statement = (
        select(TRIALS.c.job_id)
        .join(JOBS, JOBS.c.id == TRIALS.c.job_id)
        .where(TRIALS.c.study_id == study_id, JOBS.c.state.in_(sorted(states)))
        .order_by(TRIALS.c.number)
    )
    return list(connection.execute(statement).scalars())


_GOES_ON = "it goes on from all that it knows as soon as there is room for its trials."
_MESSAGES = {
    StudyReason.CANCELLED: "Cancelled while it waited, with its trials; retry lets it go on.",
    StudyReason.PAUSED: "Paused while it waited; resume lets it go on.",
    StudyReason.RESUMED: f"Resumed; {_GOES_ON}",
    StudyReason.RETRIED: f"Retried; {_GOES_ON}",
    StudyReason.EXTENDED: f"Its budget was raised; {_GOES_ON}",
}


def _state(state: JobState, reason: StudyReason) -> dict[str, Any]:
    ended = now_us() if state in FINAL_STATES else None
    return {
        "state": state.value,
        "reason": reason.value,
        "message": _MESSAGES[reason],
        "ended_us": ended,
        "pause_requested": False,
    }


def _refuse_the_ended(row: Row[Any], verb: str) -> None:
    if row.state in FINAL_STATES:
        raise StudyStateConflict(
            f"the study has {wishes.ended_how(row)}; there is nothing to {verb}", row.state
        )
    if row.cancel_requested:
        raise StudyStateConflict(
            "the study is being cancelled, which cannot be taken back", row.state
        )


def _lowered(old: Budget, new: Budget) -> tuple[FieldError, ...]:
    found = []
    for name in Budget.model_fields:
        before, after = getattr(old, name), getattr(new, name)
        if after is not None and (before is None or after < before):
            wrong = (
                "must stay unlimited" if before is None else f"must be at least {before}, as it was"
            )
            found.append(FieldError(f"/budget/{name}", wrong))
    return tuple(found)


def _changed(connection: Connection, study_id: str, values: Mapping[str, Any]) -> Study:
    changed = {**values, "updated_us": now_us(), "of_study": study_id}
    return to_study(connection.execute(_CHANGE, changed).one())


def compare_and_set(connection: Connection, study: Study, values: Mapping[str, Any]) -> Study:
    """A study's next version, if it still is as it was seen; raises StudyStateConflict."""
    row = found(connection, study.id, locked=True)
    if (row.state, row.attempt) != (study.state, study.attempt) or (
        # A wish or an extension that the driver has not seen must not be lost at its end.
        study.state is JobState.RUNNING and row.version != study.version
    ):
        raise StudyStateConflict(
            f"the study is no longer {study.state} under driver {study.attempt} with the wishes "
            f"and the budget that were seen; it is {row.state}",
            row.state,
        )
    return _changed(connection, study.id, values)
