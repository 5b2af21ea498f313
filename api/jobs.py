"""Jobs: submit, read, list, relabel."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from api import bodies, render
from api.conditions import IfVersion, expected_version, is_unchanged, quoted
from api.dependencies import Asking, Given, JobId, OwnJobId, Services
from api.errors import (
    BODY_TOO_LARGE,
    INVALID_BODY,
    INVALID_HEADER,
    INVALID_QUERY,
    MALFORMED_BODY,
    SERVICE_PROBLEMS,
    UNSUPPORTED_MEDIA_TYPE,
    documented,
)
from api.examples import CELEBA_DESCRIPTION, CELEBA_REQUEST, PAPER_REQUEST, REQUEST
from api.ica_examples import ICA_REQUEST
from api.routes import StrictRoute
from service import errors
from service.jobs import Job, JobFilter, JobRequest, JobState, Labels

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=StrictRoute)

LIMIT_MAX = 100
BODY_PROBLEMS = (MALFORMED_BODY, INVALID_BODY, BODY_TOO_LARGE, UNSUPPORTED_MEDIA_TYPE)
MISSING_JOB = SERVICE_PROBLEMS[errors.JobNotFound]
NOT_YOURS = SERVICE_PROBLEMS[errors.NotYours]
TOO_MANY_JOBS = SERVICE_PROBLEMS[errors.TooManyJobs]
SUBMISSION_PROBLEMS = (
    *BODY_PROBLEMS,
    SERVICE_PROBLEMS[errors.InvalidSpec],
    SERVICE_PROBLEMS[errors.ExceedsCapacity],
    SERVICE_PROBLEMS[errors.IdempotencyConflict],
    INVALID_HEADER,
    INVALID_QUERY,
    SERVICE_PROBLEMS[errors.OutOfStorage],
    SERVICE_PROBLEMS[errors.NotReady],
    TOO_MANY_JOBS,
    SERVICE_PROBLEMS[errors.StorageLimit],
)
ETAG = {"schema": {"type": "string"}, "description": "The job's version."}


IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="The same key with the same body answers with the job it made before.",
    ),
]


class LabelsPatch(BaseModel):
    """What a PATCH of a job holds."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    labels: Labels
    """The job's labels from now on, instead of those it had."""


def json_answer(
    body: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A body as JSON."""
    return Response(
        body.model_dump_json(), status, dict(headers or {}), media_type="application/json"
    )


def whole(services: Services, job: Job) -> bodies.JobBody:
    """A job with all that its answer holds."""
    training = services.training
    standing, forks = training.standing(job), training.forks_of(job.id)
    expires_at = services.deletions.expires_at(job)
    return render.job_body(job, training.attempts(job.id), standing, forks, expires_at)


def etag_of(job: Job) -> dict[str, str]:
    """The headers that name a job's version."""
    # Progress is not part of the version, so a cache must ask each time.
    return {"ETag": quoted(str(job.version)), "Cache-Control": "no-cache"}


@router.post(
    "",
    operation_id="submit_job",
    summary="Submit a training job",
    status_code=201,
    response_model=bodies.JobBody,
    responses={
        201: {
            "description": "The job is stored and queued.",
            "headers": {"Location": {"schema": {"type": "string"}}, "ETag": ETAG},
        },
        200: {
            "model": bodies.PlanBody,
            "description": "With dry_run=true: what would be done; nothing is stored.",
        },
        **documented(
            *SUBMISSION_PROBLEMS,
        ),
    },
    openapi_extra={
        "requestBody": {
            "content": {
                "application/json": {
                    "examples": {
                        "delta_vae": {"value": REQUEST},
                        "ica": {"value": ICA_REQUEST},
                        "paper": {"value": PAPER_REQUEST},
                        "celeba": {
                            "summary": "The paper's CelebA network",
                            "description": CELEBA_DESCRIPTION,
                            "value": CELEBA_REQUEST,
                        },
                    }
                }
            }
        },
    },
)
def submit_job(
    body: JobRequest,
    services: Given,
    caller: Asking,
    dry_run: Annotated[bool, Query(description="Check and estimate only; store nothing.")] = False,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Store a job; it starts when resources are free. The spec is kept with every default."""
    if dry_run:
        return json_answer(render.plan_body(services.training.dry_run(body)))
    job, created = services.training.submit(body, idempotency_key, caller)
    headers = {"Location": render.job_path(job.id)} | etag_of(job)
    if not created:
        headers["Idempotency-Replayed"] = "true"
    return json_answer(whole(services, job), 201, headers)


@router.get(
    "",
    operation_id="list_jobs",
    summary="List jobs, newest first",
    response_model=bodies.JobPage,
    responses=documented(INVALID_QUERY),
)
def list_jobs(
    services: Given,
    state: Annotated[JobState | None, Query(description="Only jobs in this state.")] = None,
    trainer: Annotated[
        str | None, Query(max_length=64, description="Only jobs of this kind of trainer.")
    ] = None,
    dataset: Annotated[
        str | None, Query(max_length=64, description="Only jobs on this data set or toy.")
    ] = None,
    label: Annotated[
        str | None,
        Query(max_length=300, description="Only jobs with this label: key, or key=value."),
    ] = None,
    study: Annotated[
        str | None, Query(max_length=64, description="Only trials of this study.")
    ] = None,
    cursor: Annotated[
        str | None, Query(max_length=512, description="next_cursor of the page before.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Jobs on a page.")] = 20,
) -> Response:
    """List the jobs that match every filter given."""
    key, equals, value = (label or "").partition("=")
    wanted = JobFilter(
        state=state,
        trainer=trainer,
        dataset=dataset,
        label=(key, value if equals else None) if label else None,
        study=study,
    )
    return json_answer(render.job_page(services.training.list(wanted, cursor, limit)))


@router.get(
    "/{job_id}",
    operation_id="get_job",
    summary="Read a job",
    response_model=bodies.JobBody,
    responses={
        200: {"description": "The job.", "headers": {"ETag": ETAG}},
        304: {"description": "If-None-Match names the job's version."},
        **documented(MISSING_JOB, INVALID_QUERY),
    },
)
def get_job(job_id: JobId, request: Request, services: Given) -> Response:
    """Read a job. The ETag is its version: state, wishes and labels, but not its progress."""
    job = services.training.get(job_id)
    headers = etag_of(job)
    if is_unchanged(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return json_answer(whole(services, job), headers=headers)


@router.patch(
    "/{job_id}",
    operation_id="set_labels",
    summary="Change a job's labels",
    response_model=bodies.JobBody,
    responses={
        200: {"description": "The job with its new labels.", "headers": {"ETag": ETAG}},
        **documented(
            MISSING_JOB,
            NOT_YOURS,
            SERVICE_PROBLEMS[errors.VersionConflict],
            *BODY_PROBLEMS,
            INVALID_HEADER,
            INVALID_QUERY,
        ),
    },
)
def set_labels(
    job_id: OwnJobId,
    body: LabelsPatch,
    request: Request,
    services: Given,
    if_match: IfVersion = None,
) -> Response:
    """Replace a job's labels. With If-Match, only if the job has not changed since it was read."""
    job = services.training.set_labels(job_id, body.labels, expected_version(request))
    return json_answer(whole(services, job), headers=etag_of(job))


@router.get(
    "/{job_id}/spec",
    operation_id="get_job_spec",
    summary="The submission that makes this job again",
    response_model=JobRequest,
    responses=documented(MISSING_JOB, INVALID_QUERY),
)
def get_job_spec(job_id: JobId, services: Given) -> Response:
    """Answer with a body for POST /v1/jobs, its data set pinned and every default filled in."""
    return json_answer(render.request_of(services.training.get(job_id)))
