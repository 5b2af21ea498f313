"""Rows to values and back."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic_core import from_json
from sqlalchemy import Row

from service.jobs import (
    ArtifactInfo,
    Attempt,
    CheckpointInfo,
    Job,
    JobEvent,
    JobState,
    Limits,
    MetricPoint,
    Parent,
    Progress,
    Reason,
    Retention,
)
from workers.events import Exit
from workers.kinds import AnySpec, is_open_ended
from workers.spec import JOB_SPEC

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_us(at: datetime) -> int:
    """Microseconds since 1970 of an aware time."""
    return (at - _EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    """The aware UTC time of so many microseconds since 1970."""
    return _EPOCH + us * _MICROSECOND


def _us_or_none(at: datetime | None) -> int | None:
    return None if at is None else to_us(at)


def _time_or_none(us: int | None) -> datetime | None:
    return None if us is None else from_us(us)


def to_json(content: Mapping[str, Any]) -> str:
    """JSON without spaces."""
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False)


def _from_json(text: str) -> dict[str, Any]:
    # JSON has no NaN and no infinity: who reads events gets null.
    content: dict[str, Any] = (
        json.loads(text, parse_constant=lambda _: None)
        if "NaN" in text or "Infinity" in text
        else from_json(text)  # takes a quarter of the time
    )
    return content


def job_row(job: Job) -> dict[str, Any]:
    """The row of a job that is new."""
    progress, parent = job.progress, job.parent
    return {
        "id": job.id,
        "name": job.name,
        "labels": to_json(job.labels),
        "priority": job.priority,
        "limits": job.limits.model_dump_json(),
        "spec": job.spec.model_dump_json(),
        "spec_digest": job.spec_digest,
        "trainer": job.spec.trainer.kind,
        "dataset": job.spec.data_name or "",  # nothing is named so
        "dataset_digest": job.spec.data_digest,
        "state": job.state.value,
        "reason": job.reason.value,
        "message": job.message,
        "version": job.version,
        "cancel_requested": job.cancel_requested,
        "attempt": job.attempt,
        "created_us": to_us(job.created_at),
        "updated_us": to_us(job.updated_at),
        "ended_us": _us_or_none(job.ended_at),
        "last_seq": 0,
        "step": progress and progress.step,
        "total_steps": progress and progress.total_steps,
        "epoch": progress and progress.epoch,
        "eta_s": progress and progress.eta_s,
        "parent_job_id": parent and parent.job_id,
        "parent_checkpoint_id": parent and parent.checkpoint_id,
        "parent_prefix": parent and parent.prefix,
        "parent_digest": parent and parent.digest,
        "parent_start": parent and parent.start,
        "pause_requested": job.pause_requested,
        "not_before_us": _us_or_none(job.not_before),
        "counts_from": job.counts_from,
        "keep_succeeded_s": job.retention.succeeded_s,
        "keep_failed_s": job.retention.failed_s,
        "keep_cancelled_s": job.retention.cancelled_s,
        "study_id": job.study_id,
        "owner": job.owner,
        "reserved_bytes": job.reserved_bytes,
        "traceparent": job.traceparent,
    }


def _progress(row: Row[Any], spec: AnySpec) -> Progress | None:
    """How far the job of a row is; where a run ends when it has converged nobody knows when."""
    if row.step is None:
        return None
    if not is_open_ended(spec):
        return Progress(row.step, row.total_steps, row.epoch, row.eta_s)
    has_succeeded = row.state == JobState.SUCCEEDED
    return Progress(row.step, row.step if has_succeeded else row.total_steps, row.epoch, None)


def to_job(row: Row[Any]) -> Job:
    """The job of a row of ``jobs``."""
    spec = JOB_SPEC.validate_json(row.spec)
    parent = None
    if row.parent_job_id is not None:
        parent = Parent(
            job_id=row.parent_job_id,
            checkpoint_id=row.parent_checkpoint_id,
            prefix=row.parent_prefix,
            digest=row.parent_digest,
            start=row.parent_start,
        )
    return Job(
        id=row.id,
        name=row.name,
        labels=json.loads(row.labels),
        priority=row.priority,
        limits=Limits.model_validate_json(row.limits),
        spec=spec,
        spec_digest=row.spec_digest,
        state=JobState(row.state),
        reason=Reason(row.reason),
        message=row.message,
        version=row.version,
        created_at=from_us(row.created_us),
        updated_at=from_us(row.updated_us),
        cancel_requested=row.cancel_requested,
        pause_requested=row.pause_requested,
        attempt=row.attempt,
        counts_from=row.counts_from,
        not_before=_time_or_none(row.not_before_us),
        progress=_progress(row, spec),
        ended_at=_time_or_none(row.ended_us),
        parent=parent,
        retention=Retention(
            succeeded_s=row.keep_succeeded_s,
            failed_s=row.keep_failed_s,
            cancelled_s=row.keep_cancelled_s,
        ),
        traceparent=row.traceparent,
        study_id=row.study_id,
        owner=row.owner,
        reserved_bytes=row.reserved_bytes,
    )


def attempt_row(attempt: Attempt) -> dict[str, Any]:
    """The row of an attempt that is new."""
    return {
        "job_id": attempt.job_id,
        "number": attempt.number,
        "executor_id": attempt.executor_id,
        "session": attempt.session,
        "created_us": to_us(attempt.created_at),
        "next_chunk": attempt.next_chunk,
        "pid": attempt.pid,
        "host": attempt.host,
        "resumed_from": attempt.resumed_from,
        "resumed_from_step": attempt.resumed_from_step,
        "started_us": _us_or_none(attempt.started_at),
        "first_step_us": _us_or_none(attempt.first_step_at),
        "ended_us": _us_or_none(attempt.ended_at),
        "reason": attempt.reason and attempt.reason.value,
        "message": attempt.message,
        "heard_us": _us_or_none(attempt.heard_at),
        "last_step": attempt.last_step,
        "peak_rss_bytes": attempt.peak_rss_bytes,
        "exit": attempt.exit and attempt.exit.model_dump_json(),
    }


def to_attempt(row: Row[Any]) -> Attempt:
    """The attempt of a row of ``attempts``."""
    return Attempt(
        job_id=row.job_id,
        number=row.number,
        executor_id=row.executor_id,
        session=row.session,
        created_at=from_us(row.created_us),
        next_chunk=row.next_chunk,
        pid=row.pid,
        host=row.host,
        resumed_from=row.resumed_from,
        resumed_from_step=row.resumed_from_step,
        started_at=_time_or_none(row.started_us),
        first_step_at=_time_or_none(row.first_step_us),
        ended_at=_time_or_none(row.ended_us),
        reason=None if row.reason is None else Reason(row.reason),
        message=row.message,
        heard_at=_time_or_none(row.heard_us),
        last_step=row.last_step,
        peak_rss_bytes=row.peak_rss_bytes,
        exit=None if row.exit is None else Exit.model_validate_json(row.exit),
    )


def to_event(row: Sequence[Any]) -> JobEvent:
    """The event of a row of ``events``."""
    _, seq, at_us, attempt, kind, data = row
    return JobEvent(seq, from_us(at_us), attempt, kind, _from_json(data))


def to_points(rows: Iterable[Sequence[Any]]) -> list[MetricPoint]:
    """The points of rows of ``metric_points``, each a step, an epoch, a value and a time."""
    # In one expression, as an answer has ten thousand of them.
    return [
        MetricPoint(
            step, epoch, math.nan if value is None else value, _EPOCH + at_us * _MICROSECOND
        )
        for step, epoch, value, at_us in rows
    ]


def to_checkpoint(row: Row[Any]) -> CheckpointInfo:
    """The checkpoint of a row of ``checkpoints``."""
    return CheckpointInfo(
        id=row.id,
        attempt=row.attempt,
        step=row.step,
        epoch=row.epoch,
        prefix=row.prefix,
        digest=row.digest,
        size_bytes=row.size_bytes,
        metrics=json.loads(row.metrics),
        is_best=row.is_best,
        has_train_state=row.has_train_state,
        created_at=from_us(row.created_us),
    )


def to_artifact(row: Row[Any]) -> ArtifactInfo:
    """The artifact of a row of ``artifacts``."""
    return ArtifactInfo(
        name=row.name,
        key=row.key,
        attempt=row.attempt,
        media_type=row.media_type,
        digest=row.digest,
        size_bytes=row.size_bytes,
        step=row.step,
        epoch=row.epoch,
        created_at=from_us(row.created_us),
    )
