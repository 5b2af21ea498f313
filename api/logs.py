"""What a job's attempts said, as text or as JSON."""

import hashlib
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api import bodies, render
from api.conditions import is_unchanged, quoted
from api.dependencies import Given, JobId
from api.errors import INVALID_QUERY, NOT_ACCEPTABLE, SERVICE_PROBLEMS, documented
from api.jobs import json_answer
from api.negotiation import VARY, choose
from api.routes import StrictRoute
from service import errors
from service.logs import LINES_OF_A_PAGE, Cursor, LogPage

router = APIRouter(prefix="/v1/jobs", tags=["logs"], route_class=StrictRoute)

TEXT = "text/plain"
NDJSON = "application/x-ndjson"
ATTEMPT_MAX = 2**31 - 1
RANK_MAX = 63
_FORMS = {TEXT: "text", "application/json": "json", NDJSON: "ndjson"}
_NEXT = {
    "schema": {"type": "string"},
    "description": "Give it as ?after= to get what comes next.",
}
_TEXT_EXAMPLE = (
    "2026-01-02T03:04:05.000Z info     training begins: 5400 steps, 90 an epoch\n"
    "2026-01-02T03:04:09.120Z info     epoch 1 step 90: loss_nats=571.2 held_out_elbo_nats=-560.3\n"
)
_NDJSON_EXAMPLE = (
    '{"at":"2026-01-02T03:04:05Z","level":"info","text":"training begins: 5400 steps, 90 an epoch",'
    '"lines":null,"size_bytes":null,"attempt":1,"rank":0}\n'
)


@router.get(
    "/{job_id}/logs",
    operation_id="get_logs",
    summary="What a job's attempts said",
    response_model=bodies.LogPageBody,
    responses={
        200: {
            "description": "Lines in their order.",
            "headers": {"ETag": {"schema": {"type": "string"}}, "Next-After": _NEXT},
            "content": {
                TEXT: {"schema": {"type": "string"}, "example": _TEXT_EXAMPLE},
                NDJSON: {"schema": {"type": "string"}, "example": _NDJSON_EXAMPLE},
            },
        },
        304: {"description": "If-None-Match names this answer: nothing has happened since."},
        **documented(
            SERVICE_PROBLEMS[errors.JobNotFound],
            NOT_ACCEPTABLE,
            INVALID_QUERY,
            SERVICE_PROBLEMS[errors.NotReady],
        ),
    },
)
def get_logs(
    job_id: JobId,
    request: Request,
    services: Given,
    attempt: Annotated[
        int | None, Query(ge=1, le=ATTEMPT_MAX, description="Only this attempt; else all of them.")
    ] = None,
    rank: Annotated[
        int | None,
        Query(ge=0, le=RANK_MAX, description="Only this worker of each attempt; the first is 0."),
    ] = None,
    after: Annotated[
        str | None,
        Query(max_length=32, description="next_after of an answer before, or an event's number."),
    ] = None,
    tail: Annotated[
        int | None,
        Query(ge=0, le=LINES_OF_A_PAGE, description="Only so many lines from the end."),
    ] = None,
    limit: Annotated[
        int, Query(ge=1, le=LINES_OF_A_PAGE, description="Lines in one answer.")
    ] = 1000,
    format: Annotated[
        Literal["text", "json", "ndjson"] | None, Query(description="Overrides Accept.")
    ] = None,
) -> Response:
    """Read what the process of each attempt said, its crashes included.

    An answer holds at most ``limit`` lines, and some megabytes; Next-After goes on. To follow a
    job, read its events with ``?kind=log``. A line of level ``gap`` says what is missing there.
    Several workers speak in turns of some seconds: ``at`` is the order between them. In text a line
    of a worker other than the first begins with ``[worker 1]``.
    """
    chosen = format or _FORMS[choose(request.headers.get("accept"), _FORMS)]
    if tail is not None and after is not None:
        problem = "cannot be given together with after"
        field = errors.FieldError("/query/tail", problem)
        raise errors.InvalidQuery(f"/query/tail: {problem}", (field,))
    cursor = Cursor.parse(after or "0")
    said = f"{services.logs.version(job_id)} {attempt} {rank} {after} {tail} {limit} {chosen}"
    tag = quoted(hashlib.sha256(said.encode()).hexdigest()[:32])
    headers = {"ETag": tag, "Cache-Control": "no-cache"} | VARY
    if is_unchanged(request, tag):
        return Response(status_code=304, headers=headers)
    if tail is not None:
        page = services.logs.tail(job_id, attempt, tail, rank)
    else:
        page = services.logs.read(job_id, attempt, cursor, limit, rank)
    return _answer(page, chosen, headers | {"Next-After": str(page.cursor)})


def _answer(page: LogPage, form: str, headers: dict[str, str]) -> Response:
    if form == "text":
        return Response(render.log_text(page), headers=headers, media_type=TEXT)
    body = render.log_page_body(page)
    if form == "json":
        return json_answer(body, headers=headers)
    lines = "".join(f"{line.model_dump_json()}\n" for line in body.lines)
    return Response(lines, headers=headers, media_type=NDJSON)
