"""From the service's values to the bodies of answers."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Any
from urllib.parse import quote

from pydantic_core import to_json

from api import bodies
from service.jobs import (
    ArtifactInfo,
    Attempt,
    CheckpointInfo,
    Job,
    JobEvent,
    JobRequest,
    MetricPoint,
    Page,
    Parent,
    Progress,
)
from service.logs import LogLine, LogPage
from service.queueing import Standing
from service.training import Plan

VERBS = ("cancel", "pause", "resume", "retry", "fork")


def job_path(job_id: str) -> str:
    """The path of a job."""
    return f"/v1/jobs/{quote(job_id, safe='')}"


def study_path(study_id: str) -> str:
    """The path of a study."""
    return f"/v1/studies/{quote(study_id, safe='')}"


_OF_MODELS = ("samples", "reconstructions")
_OF_NETWORKS = (*_OF_MODELS, "interpolations", "grids", "filmstrip")
_OF_ICA = (*_OF_MODELS, "mixing", "unmixing", "sources")


def job_links(job_id: str, trainer: str) -> dict[str, str]:
    """The paths of what belongs to a job of that kind of trainer."""
    path = job_path(job_id)
    match trainer:
        case "paper":
            own = tuple(verb for verb in VERBS if verb != "fork")
        case "ica":
            own = (*_OF_ICA, *VERBS)
        case _:
            own = (*_OF_NETWORKS, *VERBS)
    names = ("spec", "explain", "logs", "events", "metrics", "checkpoints", "artifacts", *own)
    return {"self": path} | {name: f"{path}/{name}" for name in names}


def _parent_link(parent: Parent | None) -> dict[str, str]:
    return {} if parent is None else {"parent": job_path(parent.job_id)}


def progress_body(progress: Progress | None) -> bodies.ProgressBody | None:
    """How far a job is."""
    if progress is None:
        return None
    return bodies.ProgressBody(
        step=progress.step,
        total_steps=progress.total_steps,
        fraction=min(progress.step / max(progress.total_steps, 1), 1.0),
        epoch=progress.epoch,
        eta_s=progress.eta_s,
    )


def parent_body(parent: Parent | None) -> bodies.ParentBody | None:
    """Where a fork comes from."""
    if parent is None:
        return None
    return bodies.ParentBody(
        job=parent.job_id,
        checkpoint=parent.checkpoint_id,
        digest=parent.digest,
        start=parent.start,
    )


def _summary_fields(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "name": job.name,
        "labels": dict(job.labels),
        "priority": job.priority,
        "state": job.state.value,
        "reason": job.reason.value,
        "message": job.message,
        "cancel_requested": job.cancel_requested,
        "pause_requested": job.pause_requested,
        "trainer": job.spec.trainer.kind,
        "dataset": job.spec.data_name,
        "progress": progress_body(job.progress),
        "parent": parent_body(job.parent),
        "study": job.study_id,
        "owner": job.owner,
        "spec_digest": job.spec_digest,
        "version": job.version,
        "created_at": job.created_at,
        "updated_at": job.updated_at,
        "ended_at": job.ended_at,
        "links": job_links(job.id, job.spec.trainer.kind)
        | _parent_link(job.parent)
        | ({} if job.study_id is None else {"study": study_path(job.study_id)}),
    }


def attempt_body(attempt: Attempt) -> bodies.AttemptBody:
    """One try at a job."""
    return bodies.AttemptBody(
        number=attempt.number,
        reason=attempt.reason.value if attempt.reason else None,
        message=attempt.message,
        host=attempt.host,
        pid=attempt.pid,
        resumed_from_step=attempt.resumed_from_step,
        created_at=attempt.created_at,
        started_at=attempt.started_at,
        first_step_at=attempt.first_step_at,
        ended_at=attempt.ended_at,
    )


def queue_body(standing: Standing) -> bodies.QueueBody:
    """Where a waiting job stands."""
    return bodies.QueueBody(
        ahead=standing.ahead,
        not_before=standing.not_before,
        starts_at=standing.starts_at,
        basis=standing.basis,
    )


def job_body(
    job: Job,
    attempts: Sequence[Attempt],
    standing: Standing | None,
    forks: Sequence[str],
    expires_at: datetime | None,
) -> bodies.JobBody:
    """A job, whole."""
    return bodies.JobBody(
        **_summary_fields(job),
        limits=bodies.LimitsBody(
            max_wall_s=job.limits.max_wall_s, max_attempts=job.limits.max_attempts
        ),
        retention=bodies.RetentionBody(**job.retention.model_dump()),
        expires_at=expires_at,
        queue=None if standing is None else queue_body(standing),
        attempts=[attempt_body(attempt) for attempt in attempts],
        forks=list(forks),
        spec=job.spec.model_dump(mode="json"),
    )


def job_page(page: Page) -> bodies.JobPage:
    """One page of a list."""
    return bodies.JobPage(
        jobs=[bodies.JobSummary(**_summary_fields(job)) for job in page.jobs],
        next_cursor=page.next_cursor,
    )


def request_of(job: Job) -> JobRequest:
    """The submission that would make this job again."""
    return JobRequest(
        name=job.name,
        labels=dict(job.labels),
        priority=job.priority,
        limits=job.limits,
        retention=job.retention,
        spec=job.spec,
    )


def plan_body(plan: Plan) -> bodies.PlanBody:
    """What a submission would do."""
    return bodies.PlanBody(
        spec=plan.spec.model_dump(mode="json"),
        parameters=plan.parameters,
        memory_bytes=plan.memory_bytes,
        steps=plan.steps,
        storage_bytes=plan.storage_bytes,
        duration_s=plan.duration_s,
        waits_for=plan.waits_for,
        advice=list(plan.advice),
        queue=queue_body(plan.standing),
    )


def event_body(event: JobEvent) -> bodies.EventBody:
    """One event of a job."""
    return bodies.EventBody(
        seq=event.seq,
        at=event.at,
        attempt=event.attempt,
        kind=event.kind,
        data=dict(event.data),
    )


def log_event_body(event: JobEvent, lines: Sequence[LogLine]) -> bodies.EventBody:
    """A ``log`` event with its lines."""
    entries = [
        bodies.LogEntryBody(**line.model_dump()).model_dump(mode="json", exclude_none=True)
        for line in lines
    ]
    body = event_body(event)
    return body.model_copy(update={"data": {**body.data, "entries": entries}})


def log_page_body(page: LogPage) -> bodies.LogPageBody:
    """One page of a log."""
    return bodies.LogPageBody(
        lines=[
            bodies.LogLineBody(attempt=said.attempt, rank=said.rank, **said.line.model_dump())
            for said in page.lines
        ],
        next_after=str(page.cursor),
        has_more=page.has_more,
        is_ended=page.is_ended,
    )


def log_text(page: LogPage) -> str:
    """One page of a log as plain text."""
    return "".join(
        f"{said.line.at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}"
        f".{said.line.at.microsecond // 1000:03d}Z {said.line.level:8} "
        f"{bodies.spoken_by(said.rank)}{said.line.text}\n"
        for said in page.lines
    )


def metrics_json(metrics: Mapping[str, Sequence[MetricPoint]]) -> bytes:
    """A :class:`bodies.MetricsBody` as JSON, without a model for each of thousands of points."""
    curves = {
        name: [
            {"step": step, "epoch": epoch, "value": value if isfinite(value) else None, "at": at}
            for step, epoch, value, at in points
        ]
        for name, points in metrics.items()
    }
    return to_json({"metrics": curves})


def checkpoint_body(job_id: str, trainer: str, checkpoint: CheckpointInfo) -> bodies.CheckpointBody:
    """A checkpoint with the paths of its weights and, where it has a model, samples."""
    path, name = job_path(job_id), quote(checkpoint.id, safe="")
    links = {"weights": f"{path}/checkpoints/{name}/weights"}
    if trainer != "paper":
        links["samples"] = f"{path}/samples?checkpoint={name}"
    return bodies.CheckpointBody(
        id=checkpoint.id,
        attempt=checkpoint.attempt,
        step=checkpoint.step,
        epoch=checkpoint.epoch,
        digest=checkpoint.digest,
        size_bytes=checkpoint.size_bytes,
        metrics=finite_values(checkpoint.metrics),
        is_best=checkpoint.is_best,
        has_train_state=checkpoint.has_train_state,
        created_at=checkpoint.created_at,
        links=links,
    )


def artifact_body(job_id: str, artifact: ArtifactInfo) -> bodies.ArtifactBody:
    """A published file with its path."""
    return bodies.ArtifactBody(
        name=artifact.name,
        attempt=artifact.attempt,
        media_type=artifact.media_type,
        digest=artifact.digest,
        size_bytes=artifact.size_bytes,
        step=artifact.step,
        epoch=artifact.epoch,
        created_at=artifact.created_at,
        links={"content": f"{job_path(job_id)}/artifacts/{quote(artifact.name)}"},
    )


def finite(value: float) -> float | None:
    """The number, or None where it is none: JSON has no NaN."""
    return value if isfinite(value) else None


def finite_values(values: Mapping[str, float]) -> dict[str, float | None]:
    """Numbers by name, see :func:`finite`."""
    return {name: finite(value) for name, value in values.items()}
