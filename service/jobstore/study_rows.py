"""Rows of studies, trials and their results to values and back."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pydantic_core import from_json
from sqlalchemy import Row, bindparam, select

from service.jobs import JobState, Reason
from service.jobstore.rows import from_us, to_us
from service.jobstore.schema import JOBS, TRIALS
from service.studies.ledger import Phase, Study, StudyReason, Trial, TrialResult
from service.studies.request import StudyRequest


def study_row(study: Study) -> dict[str, Any]:
    """The row of a study that is new."""
    return {
        "id": study.id,
        "name": study.request.name,
        "request": study.request.model_dump_json(),
        "is_overridden": study.is_overridden,
        "state": study.state.value,
        "reason": study.reason.value,
        "message": study.message,
        "version": study.version,
        "attempt": study.attempt,
        "cancel_requested": study.cancel_requested,
        "pause_requested": study.pause_requested,
        "created_us": to_us(study.created_at),
        "updated_us": to_us(study.updated_at),
        "ended_us": None if study.ended_at is None else to_us(study.ended_at),
        "last_trial": 0,
        "last_result": 0,
        "owner": study.owner,
        "reserved_bytes": study.reserved_bytes,
        "dataset_digest": study.request.spec.data_digest,
    }


@lru_cache(maxsize=512)
def _request(text: str) -> StudyRequest:
    """A stored request; they are read again and again, and checking one takes a millisecond."""
    return StudyRequest.model_validate_json(text)


def to_study(row: Row[Any]) -> Study:
    """The study of a row of ``studies``."""
    return Study(
        id=row.id,
        request=_request(row.request),
        is_overridden=row.is_overridden,
        state=JobState(row.state),
        reason=StudyReason(row.reason),
        message=row.message,
        version=row.version,
        created_at=from_us(row.created_us),
        updated_at=from_us(row.updated_us),
        attempt=row.attempt,
        cancel_requested=row.cancel_requested,
        pause_requested=row.pause_requested,
        ended_at=None if row.ended_us is None else from_us(row.ended_us),
        owner=row.owner,
        reserved_bytes=row.reserved_bytes,
    )


TRIALS_OF = (
    select(
        *(TRIALS.c[n] for n in ("study_id", "number", "configuration", "seed", "phase")),
        TRIALS.c["values"].label("values_json"),
        TRIALS.c.job_id,
        *(JOBS.c[n] for n in ("state", "reason", "message", "created_us", "ended_us", "last_seq")),
    )
    .join(JOBS, JOBS.c.id == TRIALS.c.job_id)
    .where(TRIALS.c.study_id == bindparam("of_study"))
    .order_by(TRIALS.c.number)
)
"""The trials of the study ``of_study`` beside their jobs, in the order of their numbers."""


def to_trial(row: Sequence[Any]) -> Trial:
    """The trial of a row of :data:`TRIALS_OF`."""
    # By position, as a study has thousands of them and a column by name takes six times as long.
    study_id, number, configuration, seed, phase, values, job_id, *of_job = row
    state, reason, message, created_us, ended_us, last_seq = of_job
    return Trial(
        study_id=study_id,
        number=number,
        configuration=configuration,
        values=from_json(values),
        seed=seed,
        phase=Phase(phase),
        job_id=job_id,
        state=JobState(state),
        reason=Reason(reason),
        message=message,
        created_at=from_us(created_us),
        last_event=last_seq,
        ended_at=None if ended_us is None else from_us(ended_us),
    )


def to_result(row: Sequence[Any]) -> TrialResult:
    """The result of a row of ``trial_results``."""
    _, seq, trial, epoch, metrics, at_us = row
    return TrialResult(seq, trial, epoch, from_json(metrics), from_us(at_us))
