"""Studies: submit, read, list, extend, delete."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from api import bodies, study_render
from api.conditions import IfVersion, expected_version, is_unchanged, quoted
from api.dependencies import Asking, Given, OwnStudyId, Services, StudyId
from api.errors import INVALID_BODY, INVALID_HEADER, INVALID_QUERY, SERVICE_PROBLEMS, documented
from api.errors import RefusedError as Refused
from api.jobs import (
    BODY_PROBLEMS,
    LIMIT_MAX,
    NOT_YOURS,
    SUBMISSION_PROBLEMS,
    TOO_MANY_JOBS,
    IdempotencyKey,
    json_answer,
)
from api.render import study_path
from api.routes import StrictRoute
from api.study_examples import STUDY_REQUEST
from service import errors
from service.errors import FieldError
from service.jobs import JobState
from service.studies.ledger import Study
from service.studies.request import TRIALS_MAX, StudyRequest

router = APIRouter(prefix="/v1/studies", tags=["studies"], route_class=StrictRoute)

ETAG = {"schema": {"type": "string"}, "description": "The study's version."}
MISSING_STUDY = SERVICE_PROBLEMS[errors.StudyNotFound]


class BudgetChanges(BaseModel):
    """Limits from now on; those that are not named stay as they are."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        json_schema_extra={"minProperties": 1},
    )

    trials: int = Field(default=1, ge=1, le=TRIALS_MAX)
    """Configurations that are tried, those that were included."""
    max_wall_s: float | None = Field(default=None, gt=0, le=31_536_000)
    """Seconds in which any trial of the search has an attempt; the confirmation comes on top.
    null: no limit."""
    max_epochs: int | None = Field(default=None, ge=1, le=10**12)
    """Epochs of all trials of the search together; the confirmation comes on top. null: no
    limit."""


class StudyPatch(BaseModel):
    """What a PATCH of a study holds."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    budget: BudgetChanges
    """How much may be used from now on; a limit can only be raised."""


def etag_of(study: Study) -> dict[str, str]:
    """The headers that name a study's version."""
    # Progress is not part of the version, so a cache must ask each time.
    return {"ETag": quoted(str(study.version)), "Cache-Control": "no-cache"}


def whole(services: Services, study: Study) -> bodies.StudyBody:
    """A study with all that its answer holds."""
    count = services.datasets.count_of(study.request.spec.dataset)
    return study_render.study_body(study, services.answers.progress(study), count)


@router.post(
    "",
    operation_id="submit_study",
    summary="Submit a study",
    status_code=201,
    response_model=bodies.StudyBody,
    responses={
        201: {
            "description": "The study is stored and queued.",
            "headers": {"Location": {"schema": {"type": "string"}}, "ETag": ETAG},
        },
        200: {
            "model": bodies.StudyPlanBody,
            "description": "With dry_run=true: what would be done at most; nothing is stored.",
        },
        **documented(
            *SUBMISSION_PROBLEMS,
            SERVICE_PROBLEMS[errors.InvalidStudy],
            SERVICE_PROBLEMS[errors.DependentObjective],
        ),
    },
    openapi_extra={
        "requestBody": {
            "content": {"application/json": {"examples": {"which_noise": {"value": STUDY_REQUEST}}}}
        },
    },
)
def submit_study(
    body: StudyRequest,
    services: Given,
    caller: Asking,
    dry_run: Annotated[bool, Query(description="Check and estimate only; store nothing.")] = False,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Store a study: a search over specs, whose trials are jobs.

    An objective that depends on what is tuned is refused, with the metrics that could rank the
    trials: it would choose a noise, not a model. Every default is filled in and stored.
    """
    if dry_run:
        return json_answer(study_render.plan_body(services.studying.dry_run(body)))
    study, created = services.studying.submit(body, idempotency_key, caller)
    headers = {"Location": study_path(study.id)} | etag_of(study)
    if not created:
        headers["Idempotency-Replayed"] = "true"
    return json_answer(whole(services, study), 201, headers)


@router.get(
    "",
    operation_id="list_studies",
    summary="List studies, newest first",
    response_model=bodies.StudyPageBody,
    responses=documented(INVALID_QUERY),
)
def list_studies(
    services: Given,
    state: Annotated[JobState | None, Query(description="Only studies in this state.")] = None,
    cursor: Annotated[
        str | None, Query(max_length=512, description="next_cursor of the page before.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Studies on a page.")] = 20,
) -> Response:
    """List the studies that match."""
    return json_answer(study_render.study_page(services.studying.list(state, cursor, limit)))


@router.get(
    "/{study_id}",
    operation_id="get_study",
    summary="Read a study",
    response_model=bodies.StudyBody,
    responses={
        200: {"description": "The study.", "headers": {"ETag": ETAG}},
        304: {"description": "If-None-Match names the study's version."},
        **documented(MISSING_STUDY, INVALID_QUERY),
    },
)
def get_study(study_id: StudyId, request: Request, services: Given) -> Response:
    """Read a study. The ETag is its version: state, wishes and budget, but not its progress."""
    study = services.studying.get(study_id)
    headers = etag_of(study)
    if is_unchanged(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return json_answer(whole(services, study), headers=headers)


@router.patch(
    "/{study_id}",
    operation_id="extend_study",
    summary="Raise a study's budget",
    response_model=bodies.StudyBody,
    responses={
        200: {"description": "The study with its new budget.", "headers": {"ETag": ETAG}},
        **documented(
            MISSING_STUDY,
            NOT_YOURS,
            SERVICE_PROBLEMS[errors.StudyStateConflict],
            SERVICE_PROBLEMS[errors.StudyChanged],
            TOO_MANY_JOBS,
            SERVICE_PROBLEMS[errors.StorageLimit],
            *BODY_PROBLEMS,
            SERVICE_PROBLEMS[errors.InvalidStudy],
            INVALID_HEADER,
            INVALID_QUERY,
        ),
    },
)
def extend_study(
    study_id: OwnStudyId,
    body: StudyPatch,
    request: Request,
    services: Given,
    caller: Asking,
    if_match: IfVersion = None,
) -> Response:
    """Raise the limits that are named. A study that has succeeded is queued again, and goes on
    from all that it knows; its answer is confirmed anew if the search finds other candidates.

    With If-Match, only if the study has not changed since it was read.
    """
    changes = body.budget.model_dump(exclude_unset=True)
    if not changes:
        found = [FieldError("/budget", "must name a limit: trials, max_wall_s or max_epochs")]
        raise Refused(INVALID_BODY, "/budget names no limit to raise.", errors=found)
    version = expected_version(request, "study")
    study = services.studying.extend(study_id, changes, version, caller)
    return json_answer(whole(services, study), headers=etag_of(study))


@router.delete(
    "/{study_id}",
    operation_id="delete_study",
    summary="Delete a study that has ended",
    status_code=204,
    responses={
        204: {"description": "The study and its trials are gone; their artifacts follow soon."},
        **documented(
            MISSING_STUDY,
            NOT_YOURS,
            SERVICE_PROBLEMS[errors.StudyStateConflict],
            SERVICE_PROBLEMS[errors.StudyChanged],
            INVALID_HEADER,
            INVALID_QUERY,
        ),
    },
)
def delete_study(
    study_id: OwnStudyId,
    request: Request,
    services: Given,
    if_match: IfVersion = None,
) -> Response:
    """Delete a study with its trials, which are jobs, and all that these have.

    It is gone at once; artifacts are removed after that. Jobs that were forked or promoted from
    its trials have their own copies and stay. A study that has not ended must be cancelled first.
    """
    services.studying.delete(study_id, expected_version(request, "study"))
    return Response(status_code=204)
