"""Every error as problem+json (RFC 9457): the one table from ServiceError to status and type."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from api import bodies
from api.pointers import pointer
from service import errors
from service.errors import FieldError, ServiceError
from service.validation import plain_message

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 5
_USERS_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem: its stable name, status and title."""

    name: str
    status: int
    title: str
    retryable: bool = False

    @property
    def type(self) -> str:
        """The URI reference that names it."""
        return f"/problems/{self.name}"


# Every class of the tree stands here (a test walks it).
SERVICE_PROBLEMS: Mapping[type[ServiceError], Kind] = {
    errors.ServiceError: Kind("internal-error", 500, "The service failed"),
    errors.NotFound: Kind("not-found", 404, "Not found"),
    errors.JobNotFound: Kind("job-not-found", 404, "No such job"),
    errors.CheckpointNotFound: Kind("checkpoint-not-found", 404, "No such checkpoint"),
    errors.ResultNotFound: Kind("result-not-found", 404, "No such result"),
    errors.OtherTrainer: Kind("other-trainer", 404, "The job's trainer has no such result"),
    errors.UnknownTrainer: Kind("unknown-trainer", 404, "No such trainer"),
    errors.DatasetNotFound: Kind("dataset-not-found", 404, "No such data set"),
    errors.StudyNotFound: Kind("study-not-found", 404, "No such study"),
    errors.KeyNotFound: Kind("key-not-found", 404, "No such API key"),
    errors.NotYours: Kind("not-yours", 403, "It belongs to somebody else"),
    errors.LimitReached: Kind("limit-reached", 429, "A limit of the key", retryable=True),
    errors.TooManyJobs: Kind("too-many-jobs", 429, "Too many jobs of the key", retryable=True),
    errors.StorageLimit: Kind("storage-limit", 429, "Too much storage of the key", retryable=True),
    errors.NoAnswerYet: Kind("no-answer-yet", 404, "Too few results for this answer"),
    errors.Conflict: Kind("conflict", 409, "Conflict"),
    errors.StateConflict: Kind("state-conflict", 409, "The job's state forbids it"),
    errors.StudyStateConflict: Kind("study-state-conflict", 409, "The study's state forbids it"),
    errors.VersionConflict: Kind("version-conflict", 412, "The job has changed"),
    errors.StudyChanged: Kind("study-changed", 412, "The study has changed"),
    errors.IdempotencyConflict: Kind(
        "idempotency-conflict", 422, "The Idempotency-Key was used with another body"
    ),
    errors.DatasetBuiltIn: Kind("dataset-built-in", 409, "The data set is built in"),
    errors.DatasetExists: Kind("dataset-exists", 428, "The name has other content"),
    errors.DatasetChanged: Kind("dataset-changed", 412, "The data set is not as asked for"),
    errors.DatasetInUse: Kind("dataset-in-use", 409, "Jobs or studies use the data set"),
    errors.SweepRunning: Kind("sweep-running", 409, "Another sweep is under way"),
    errors.Invalid: Kind("invalid", 422, "The request cannot be carried out"),
    errors.InvalidSpec: Kind("invalid-spec", 422, "The spec is not valid"),
    errors.InvalidQuery: Kind("invalid-query", 422, "A query parameter is not valid"),
    errors.InvalidDataset: Kind("invalid-dataset", 422, "The upload is no data set"),
    errors.InvalidData: Kind("invalid-data", 422, "The posted data cannot be used"),
    errors.InvalidStudy: Kind("invalid-study", 422, "The study cannot be carried out"),
    errors.DependentObjective: Kind(
        "objective-depends-on-tuned-parameter", 422, "The objective depends on what is tuned"
    ),
    errors.ExceedsCapacity: Kind("exceeds-capacity", 422, "More than this installation has"),
    errors.OutOfStorage: Kind("out-of-storage", 507, "Not enough room"),
    errors.UploadTooLarge: Kind("body-too-large", 413, "The body is too large"),
    errors.NotReady: Kind("not-ready", 503, "The service is not ready", retryable=True),
    errors.NotLeading: Kind("not-leading", 503, "Another service leads", retryable=True),
    errors.ConfigurationError: Kind("configuration-error", 500, "The service is misconfigured"),
}

BODY_TOO_LARGE = SERVICE_PROBLEMS[errors.UploadTooLarge]
INTERNAL_ERROR = SERVICE_PROBLEMS[errors.ServiceError]
INVALID_QUERY = SERVICE_PROBLEMS[errors.InvalidQuery]
_DEPENDENT = SERVICE_PROBLEMS[errors.DependentObjective]
INVALID_BODY = Kind("invalid-body", 422, "The body is not valid")
INVALID_HEADER = Kind("invalid-header", 422, "A header is not valid")
MALFORMED_BODY = Kind("malformed-body", 400, "The body is not JSON")
CROSS_ORIGIN = Kind("cross-origin", 403, "Asked from a foreign web page")
KEY_NEEDED = Kind("key-needed", 401, "An API key is needed")
UNKNOWN_KEY = Kind("unknown-key", 401, "The API key opens nothing")
INSUFFICIENT_SCOPE = Kind("insufficient-scope", 403, "The key is not for this")
TOO_MANY_REQUESTS = Kind("too-many-requests", 429, "Too many requests with the key", retryable=True)
OVERLOADED = Kind("overloaded", 503, "Too many requests at one time", retryable=True)
NO_SUCH_ROUTE = Kind("no-such-route", 404, "No such address")
METHOD_NOT_ALLOWED = Kind("method-not-allowed", 405, "Method not allowed")
NOT_ACCEPTABLE = Kind("not-acceptable", 406, "No such representation")
UNSUPPORTED_MEDIA_TYPE = Kind("unsupported-media-type", 415, "The body must be JSON")
NOT_AN_UPLOAD = Kind("not-an-upload", 415, "The body must be the file itself")
CONTENT_CHANGED = Kind("content-changed", 412, "The file has other content")
RANGE_NOT_SATISFIABLE = Kind("range-not-satisfiable", 416, "The range lies outside the file")
FOREIGN_HOST = Kind("foreign-host", 421, "Not a name of this service")

_FRAMEWORK = {
    400: MALFORMED_BODY,
    404: NO_SUCH_ROUTE,
    405: METHOD_NOT_ALLOWED,
    413: BODY_TOO_LARGE,
}
_DETAILS = {
    400: "The body could not be read; send one JSON object in UTF-8.",
    404: "There is nothing at this address; /openapi.json lists every address.",
    405: "This address does not know the method; the header Allow lists those it knows.",
    413: "The body is larger than this service accepts.",
}


class RefusedError(Exception):
    """A request that is refused before it reaches the service."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.errors = tuple(errors)
        self.headers = dict(headers or {})


def request_id(scope: Scope) -> str:
    """The request's name in log and answer; empty before it has one."""
    found = scope.get("state", {}).get("request_id", "")
    return str(found)


def problem_response(
    scope: Scope,
    kind: Kind,
    detail: str,
    *,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
    state: bodies.State | None = None,
    jobs: Sequence[str] | None = None,
    studies: Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
) -> Response:
    """The problem+json answer to the request of ``scope``."""
    body = bodies.Problem(
        type=kind.type,
        title=kind.title,
        status=kind.status,
        detail=detail,
        instance=scope.get("raw_path", b"").decode("ascii", "replace"),
        errors=[bodies.ProblemField(pointer=e.pointer, message=e.message) for e in errors],
        retryable=kind.retryable,
        request_id=request_id(scope),
        state=state,
        jobs=None if jobs is None else list(jobs[:_USERS_SHOWN]),
        studies=None if studies is None else list(studies[:_USERS_SHOWN]),
        metrics=None if metrics is None else list(metrics),
    )
    some = {"state": state, "jobs": jobs, "studies": studies, "metrics": metrics}
    absent = {name for name, given in some.items() if given is None}
    answer = Response(
        body.model_dump_json(exclude=absent), kind.status, dict(headers or {}), MEDIA_TYPE
    )
    if kind.retryable:
        answer.headers.setdefault("Retry-After", str(RETRY_AFTER_S))
    return answer


def service_problem(error: ServiceError) -> Kind:
    """The kind of problem that a service error is: that of its nearest class in the table."""
    return next(SERVICE_PROBLEMS[c] for c in type(error).__mro__ if c in SERVICE_PROBLEMS)


async def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return problem_response(
        request.scope, error.kind, str(error), errors=error.errors, headers=error.headers
    )


async def _on_service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    kind = service_problem(error)
    if kind.status >= 500:
        # What is down for now says so in its message; only a surprise needs its traceback.
        trace = None if kind.retryable else error
        logger.error("request %s: %s", request_id(request.scope), error, exc_info=trace)
    fields = error.errors if isinstance(error, errors.Invalid) else ()
    state: Any = error.state if isinstance(error, errors.StateConflict) else None
    used = error if isinstance(error, errors.DatasetInUse) else None
    metrics = error.metrics if isinstance(error, errors.DependentObjective) else None
    return problem_response(
        request.scope,
        kind,
        str(error),
        errors=fields,
        state=state,
        jobs=None if used is None else used.jobs,
        studies=None if used is None else used.studies,
        metrics=metrics,
    )


async def _on_validation_error(request: Request, error: Exception) -> Response:
    """Path, query and headers; a body's errors are explained where its model is known."""
    assert isinstance(error, RequestValidationError)
    found = [
        FieldError(pointer(tuple(problem["loc"])), plain_message(problem))
        for problem in error.errors()
    ]
    part = error.errors()[0]["loc"][0]
    kind = INVALID_HEADER if part == "header" else INVALID_QUERY
    return problem_response(
        request.scope, kind, f"{found[0].pointer} {found[0].message}.", errors=found
    )


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = _FRAMEWORK.get(error.status_code) or Kind(
        "http-error", error.status_code, "The request was refused"
    )
    detail = _DETAILS.get(error.status_code, error.detail)
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
    return problem_response(request.scope, kind, detail, headers=headers)


def _allowed(request: Request) -> str:
    """The methods that an address knows: of all its routes, while the router names the first's.

    An address that a router has as its own is no id below another one's.
    """
    routes = request.app.router.routes
    fitting = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    own = [
        route
        for route in fitting
        if getattr(getattr(route, "original_router", None), "prefix", "") == request.scope["path"]
    ]
    found = [
        method
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in own or fitting
        )
    ]
    return ", ".join([*found, "HEAD"] if "GET" in found else found)


async def _on_unexpected(request: Request, error: Exception) -> Response:
    name = request_id(request.scope)
    logger.error("request %s failed", name, exc_info=error)
    detail = f"Something unforeseen happened; the service's log has it under request {name}."
    headers = {"X-Request-ID": name}
    return problem_response(request.scope, INTERNAL_ERROR, detail, headers=headers)


def add_error_handlers(app: FastAPI) -> None:
    """Let every error of the application leave as a problem."""
    app.add_exception_handler(RefusedError, _on_refusal)
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_unexpected)


def documented(*kinds: Kind) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of a route's problems, with one example of each kind."""
    entries: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        content = entries.setdefault(
            kind.status,
            {
                "description": kind.title,
                "content": {
                    MEDIA_TYPE: {
                        "schema": {"$ref": "#/components/schemas/Problem"},
                        "examples": {},
                    }
                },
            },
        )["content"][MEDIA_TYPE]
        content["examples"][kind.name] = {"value": _example(kind)}
    return entries


def _example(kind: Kind) -> dict[str, Any]:
    detail = _DETAILS.get(kind.status, f"{kind.title}.")
    for error, listed in SERVICE_PROBLEMS.items():
        if listed is kind:
            detail = (error.__doc__ or "").strip().split("\n")[0]
    body = bodies.Problem(
        type=kind.type,
        title=kind.title,
        status=kind.status,
        detail=detail,
        instance="/v1/jobs/job-5f0c2b9e6f5a4d7c",
        errors=_EXAMPLE_FIELDS.get(kind.name, []),
        retryable=kind.retryable,
        request_id="4f0c2b9e6f5a4d7c",
        state="succeeded" if kind.name in ("state-conflict", "study-state-conflict") else None,
        jobs=["job-5f0c2b9e6f5a4d7c"] if kind.name == "dataset-in-use" else None,
        studies=["study-5f0c2b9e6f5a4d7c"] if kind.name == "dataset-in-use" else None,
        metrics=["kid_pca", "frechet_pca"] if kind is _DEPENDENT else None,
    )
    return body.model_dump(mode="json", exclude_none=True)


_EXAMPLE_FIELDS = {
    "invalid-body": [
        bodies.ProblemField(
            pointer="/spec/trainer/spread/scal",
            message="unknown key 'scal'; did you mean 'scale'?",
        )
    ],
    "invalid-spec": [
        bodies.ProblemField(
            pointer="/spec/trainer/batch_size",
            message="must be at most 9000, the size of the training split",
        )
    ],
    "invalid-query": [
        bodies.ProblemField(pointer="/query/n", message="must be less than or equal to 10000")
    ],
}
