"""The verbs of a study's life: cancel, pause, resume, retry."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from api import bodies
from api.dependencies import Asking, Given, OwnStudyId, Services
from api.errors import INVALID_QUERY, SERVICE_PROBLEMS, documented
from api.jobs import NOT_YOURS, TOO_MANY_JOBS, json_answer
from api.routes import StrictRoute
from api.studies import ETAG, MISSING_STUDY, etag_of, whole
from service import errors
from service.studies.ledger import Study

router = APIRouter(prefix="/v1/studies", tags=["studies"], route_class=StrictRoute)

_VERB: dict[int | str, dict[str, Any]] = {
    202: {"description": "The wish is stored.", "headers": {"ETag": ETAG}},
    **documented(
        MISSING_STUDY, NOT_YOURS, SERVICE_PROBLEMS[errors.StudyStateConflict], INVALID_QUERY
    ),
}
_RESUMED = {
    **_VERB,
    **documented(TOO_MANY_JOBS),
}


def _answer(services: Services, study: Study, intent: bodies.Intent) -> Response:
    body = bodies.StudyIntentBody(intent=intent, study=whole(services, study))
    return json_answer(body, 202, etag_of(study))


@router.post(
    "/{study_id}/cancel",
    operation_id="cancel_study",
    summary="Cancel a study",
    status_code=202,
    response_model=bodies.StudyIntentBody,
    responses=_VERB,
)
def cancel_study(study_id: OwnStudyId, services: Given) -> Response:
    """Ask for a study to end with its trials; asking twice is safe, and it beats a pause.

    It says ``cancelled`` only when nothing of it runs any more. What was found stays.
    """
    return _answer(services, services.studying.cancel(study_id), "cancelled")


@router.post(
    "/{study_id}/pause",
    operation_id="pause_study",
    summary="Pause a study",
    status_code=202,
    response_model=bodies.StudyIntentBody,
    responses=_VERB,
)
def pause_study(study_id: OwnStudyId, services: Given) -> Response:
    """Ask for a study to give its resources back; asking twice is safe.

    Running trials publish a checkpoint first. A queued study is paused at once.
    """
    return _answer(services, services.studying.pause(study_id), "paused")


@router.post(
    "/{study_id}/resume",
    operation_id="resume_study",
    summary="Let a paused study go on",
    status_code=202,
    response_model=bodies.StudyIntentBody,
    responses=_RESUMED,
)
def resume_study(study_id: OwnStudyId, services: Given, caller: Asking) -> Response:
    """Queue a paused study again; its trials go on from their last checkpoints. Asking twice is
    safe, and a pause that is still wished for is taken back."""
    return _answer(services, services.studying.resume(study_id, caller), "running")


@router.post(
    "/{study_id}/retry",
    operation_id="retry_study",
    summary="Retry a failed or cancelled study",
    status_code=202,
    response_model=bodies.StudyIntentBody,
    responses=_RESUMED,
)
def retry_study(study_id: OwnStudyId, services: Given, caller: Asking) -> Response:
    """Queue a failed or cancelled study again; it goes on from all that it knows, and repeats no
    finished trial. Asking twice is safe."""
    return _answer(services, services.studying.retry(study_id, caller), "running")
