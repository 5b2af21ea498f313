"""What answers about a study share: forms, ETag, statuses."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from fastapi import Request
from pydantic import BaseModel
from starlette.responses import Response

from api.conditions import is_unchanged, quoted
from api.dependencies import Services
from api.drawings import BINARY, CSV, JSON, PNG
from api.errors import INVALID_QUERY, NOT_ACCEPTABLE, SERVICE_PROBLEMS, Kind, documented
from api.negotiation import VARY, choose
from api.studies import MISSING_STUDY
from service import errors
from service.studies.standings import Standings

Form = Literal["json", "png", "csv"]
TYPES: Mapping[Form, str] = {"json": JSON, "png": PNG, "csv": CSV}
NO_ANSWER_YET = SERVICE_PROBLEMS[errors.NoAnswerYet]


def documented_answer(
    description: str, csv_example: str | None, *kinds: Kind
) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of an answer that exists as JSON, as a picture, and perhaps as CSV."""
    content: dict[str, Any] = {PNG: BINARY}
    if csv_example is not None:
        content[CSV] = {"schema": {"type": "string"}, "example": csv_example}
    return {
        200: {
            "description": description,
            "content": content,
            "headers": {"ETag": {"schema": {"type": "string"}}},
        },
        304: {"description": "If-None-Match names this answer; nothing was computed."},
        **documented(MISSING_STUDY, NO_ANSWER_YET, *kinds, NOT_ACCEPTABLE, INVALID_QUERY),
    }


def send_answer(
    request: Request,
    services: Services,
    study_id: str,
    asked: Form | None,
    forms: Mapping[Form, Callable[[Standings], BaseModel | bytes | str]],
    query: tuple[object, ...],
) -> Response:
    """An answer in the form that is asked for, or 304 without computing it.

    ``query`` is what determines it beside the study's trials; ``forms`` make it.
    """
    media_types = {TYPES[form]: form for form in forms}
    form = asked or media_types[choose(request.headers.get("accept"), dict(media_types))]
    standings = services.answers.standings(study_id)
    tag = quoted(services.answers.etag(standings, *query, form))
    headers = {"ETag": tag, "Cache-Control": "no-cache", **VARY}
    if is_unchanged(request, tag):
        return Response(status_code=304, headers=headers)

    def write() -> bytes | str:
        made = forms[form](standings)
        return made.model_dump_json() if isinstance(made, BaseModel) else made

    # Several look at the same plot, and drawing it takes a good part of a second.
    content = services.answers.once(standings, (form, repr(query)), write)
    return Response(content, headers=headers, media_type=TYPES[form])
