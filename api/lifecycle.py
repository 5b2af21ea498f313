"""The verbs of a job's life: cancel, pause, resume, retry, fork."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from api import bodies, render
from api.dependencies import Asking, Given, JobId, OwnJobId, Services
from api.errors import INVALID_BODY, INVALID_QUERY, SERVICE_PROBLEMS, documented
from api.errors import RefusedError as Refused
from api.jobs import (
    BODY_PROBLEMS,
    ETAG,
    MISSING_JOB,
    NOT_YOURS,
    SUBMISSION_PROBLEMS,
    TOO_MANY_JOBS,
    IdempotencyKey,
    etag_of,
    json_answer,
    whole,
)
from api.patching import TooDeep, merged
from api.pointers import field_errors
from api.routes import StrictRoute
from service import errors
from service.errors import FieldError
from service.forking import carried_over
from service.jobs import ForkStart, Job, JobRequest, Labels, Limits

router = APIRouter(prefix="/v1/jobs", tags=["lifecycle"], route_class=StrictRoute)

_FORBIDDEN = SERVICE_PROBLEMS[errors.StateConflict]
_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {"description": "The wish is stored.", "headers": {"ETag": ETAG}}
}
_VERB = {**_ACCEPTED, **documented(MISSING_JOB, NOT_YOURS, _FORBIDDEN, INVALID_QUERY)}
_RESUMED = {
    **_ACCEPTED,
    **documented(MISSING_JOB, NOT_YOURS, _FORBIDDEN, TOO_MANY_JOBS, INVALID_QUERY),
}
# What says which data are meant; the rest says how they are split.
_NO_CONTENT = frozenset({"digest", "held_out_fraction", "split_seed"})


class _Body(BaseModel):
    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class RetryBody(_Body):
    """What a retry may change."""

    limits: Limits | None = None
    """Limits from now on; those that are not named stay as they were."""


class ForkBody(_Body):
    """What a fork begins from, and what it changes; what is null is the parent's."""

    checkpoint: str = Field(
        default="latest", min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]*$"
    )
    """Id of a checkpoint of the parent, or ``latest``, or ``best``."""
    start: ForkStart = "train_state"
    """``train_state`` goes on with weights, optimiser and step; data, batch size and network must
    stay. ``weights`` begins at step 0 with the checkpoint's weights; the network and the shape of
    the data must stay, and of the same data none may be held out that the weights were trained on:
    ``split_seed`` stays, ``held_out_fraction`` may be lowered. ``refit_encoder`` begins so."""
    spec: dict[str, Any] = Field(default_factory=dict)
    """Changes of the parent's spec, as a JSON merge patch (RFC 7396): what is named replaces, an
    object is merged, null resets to the default."""
    name: str | None = Field(default=None, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")
    """Name of the fork."""
    labels: Labels | None = None
    """Labels of the fork, instead of the parent's."""
    priority: int | None = Field(default=None, ge=-100, le=100)
    """Priority of the fork."""
    limits: Limits | None = None
    """Limits of the fork; those that are not named are the parent's."""


def _answer(
    services: Services, job: Job, intent: bodies.Intent, headers: dict[str, str] | None = None
) -> Response:
    body = bodies.IntentBody(intent=intent, job=whole(services, job))
    return json_answer(body, 202, etag_of(job) | (headers or {}))


@router.post(
    "/{job_id}/cancel",
    operation_id="cancel_job",
    summary="Cancel a job",
    status_code=202,
    response_model=bodies.IntentBody,
    responses=_VERB,
)
def cancel_job(job_id: OwnJobId, services: Given) -> Response:
    """Ask for a job to end; asking twice is safe, and it beats a pause.

    A running job gets a grace period for a last checkpoint. It says ``cancelled`` only when
    nothing of it runs any more.
    """
    return _answer(services, services.training.cancel(job_id), "cancelled")


@router.post(
    "/{job_id}/pause",
    operation_id="pause_job",
    summary="Pause a job",
    status_code=202,
    response_model=bodies.IntentBody,
    responses=_VERB,
)
def pause_job(job_id: OwnJobId, services: Given) -> Response:
    """Ask for a job to give its resources back; asking twice is safe.

    A running job publishes a checkpoint first. It says ``paused`` only when nothing of it runs any
    more. A queued one is paused at once.
    """
    return _answer(services, services.training.pause(job_id), "paused")


@router.post(
    "/{job_id}/resume",
    operation_id="resume_job",
    summary="Let a paused job go on",
    status_code=202,
    response_model=bodies.IntentBody,
    responses=_RESUMED,
)
def resume_job(job_id: OwnJobId, services: Given, caller: Asking) -> Response:
    """Queue a paused job again; it goes on from its last checkpoint. Asking twice is safe.

    While the job is still pausing, the wish is taken back: its attempt ends with its checkpoint,
    and the job is queued again at once.
    """
    return _answer(services, services.training.resume(job_id, caller), "running")


@router.post(
    "/{job_id}/retry",
    operation_id="retry_job",
    summary="Retry a failed or cancelled job",
    status_code=202,
    response_model=bodies.IntentBody,
    responses={
        **_ACCEPTED,
        **documented(
            MISSING_JOB, NOT_YOURS, _FORBIDDEN, TOO_MANY_JOBS, *BODY_PROBLEMS, INVALID_QUERY
        ),
    },
)
def retry_job(
    job_id: OwnJobId, services: Given, caller: Asking, body: RetryBody | None = None
) -> Response:
    """Queue a failed or cancelled job again, as a new attempt from its last checkpoint.

    Attempts and time count anew against the limits, which the body may change. Asking twice is
    safe. What failed for its spec fails again: fork the job, and change the spec.
    """
    limits = body.limits if body is not None else None
    return _answer(services, services.training.retry(job_id, limits, caller), "running")


@router.post(
    "/{job_id}/fork",
    operation_id="fork_job",
    summary="Make a new job from a checkpoint, with a changed spec",
    status_code=202,
    response_model=bodies.IntentBody,
    responses={
        202: {
            "description": "The new job is stored and queued.",
            "headers": {"Location": {"schema": {"type": "string"}}, "ETag": ETAG},
        },
        **documented(
            MISSING_JOB, SERVICE_PROBLEMS[errors.CheckpointNotFound], *SUBMISSION_PROBLEMS
        ),
    },
)
def fork_job(
    job_id: JobId,
    body: ForkBody,
    services: Given,
    caller: Asking,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Make a job that begins from a checkpoint of this one, in whatever state this one is.

    The fork belongs to who asks, and has its own copy of the checkpoint. Its schedules count from
    the first epoch of its parent when it goes on from the train state. Its best checkpoint and
    early stopping begin anew.
    """
    job, is_new = services.forks.fork(
        job_id,
        body.checkpoint,
        body.start,
        lambda parent: _request(parent, body),
        body.model_dump(mode="json"),
        idempotency_key,
        caller,
    )
    headers = {"Location": render.job_path(job.id)}
    if not is_new:
        headers["Idempotency-Replayed"] = "true"
    return _answer(services, job, "running", headers)


def _request(parent: Job, body: ForkBody) -> JobRequest:
    """The parent's request with the fork's changes; raises RefusedError at the changed field."""
    trainer = body.spec.get("trainer")
    kind = trainer.get("kind") if isinstance(trainer, dict) else None
    spec = carried_over(parent.spec, kind)
    dataset = body.spec.get("dataset")
    if isinstance(dataset, dict) and not dataset.keys() <= _NO_CONTENT and spec.get("dataset"):
        spec["dataset"].pop("digest", None)  # other data have another
    named = {"name", "labels", "priority", "limits"}
    changes = {
        name: value
        for name, value in body.model_dump(include=named, exclude_unset=True).items()
        if value is not None
    }
    content = render.request_of(parent).model_dump(mode="json")
    if "limits" in changes:
        changes["limits"] = content["limits"] | changes["limits"]
    try:
        content |= changes | {"spec": merged(spec, body.spec)}
        return JobRequest.model_validate(content)
    except TooDeep as error:
        found: tuple[FieldError, ...] = (FieldError("/spec", "is nested too deeply"),)
        raise Refused(INVALID_BODY, "/spec is nested too deeply.", errors=found) from error
    except ValidationError as error:
        problems = [dict(problem) for problem in error.errors(include_url=False)]
        found = field_errors(problems, content, JobRequest.model_json_schema())
        detail = f"{found[0].pointer}: {found[0].message}"
        raise Refused(INVALID_BODY, detail, errors=found) from error
