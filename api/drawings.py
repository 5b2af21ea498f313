"""What is drawn from a checkpoint, as answers: its forms, its tag, and where it stays for ever."""

import functools
from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any, Literal, ParamSpec, Protocol
from urllib.parse import urlencode

from anyio import CapacityLimiter
from anyio.lowlevel import RunVar
from anyio.to_thread import run_sync
from fastapi import Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from api import render
from api.conditions import is_unchanged, quoted
from api.errors import (
    INVALID_QUERY,
    NOT_ACCEPTABLE,
    SERVICE_PROBLEMS,
    Kind,
    RefusedError,
    documented,
)
from api.negotiation import VARY, choose
from service import errors
from service.errors import FieldError
from service.jobs import CheckpointInfo

SEED_MAX = 2**53 - 1
PNG, NPZ, JSON = "image/png", "application/x-npz", "application/json"
Form = Literal["png", "npz", "json"]
_FORMS: Mapping[str, Form] = {PNG: "png", NPZ: "npz", JSON: "json"}
CSV = "text/csv"
_TYPES: Mapping[str, str] = {form: media_type for media_type, form in _FORMS.items()} | {"csv": CSV}
# Numbers in all arrays of an answer; as text each takes ten times the room.
VALUES_MAX: Mapping[Form, int] = {"png": 1 << 25, "npz": 1 << 25, "json": 1 << 21}
# Threads for all that runs a model; the forty that serve the other routes are not theirs.
DRAWN_AT_ONCE = 8
_limiters: RunVar[CapacityLimiter] = RunVar("drawing")  # one for each event loop, as anyio's own
BINARY = {"schema": {"type": "string", "format": "binary"}}

Seed = Annotated[
    int, Query(ge=0, le=SEED_MAX, description="Seed of the draw; row i depends on it and i.")
]
Choice = Annotated[
    str,
    Query(
        max_length=200,
        description="Id of a checkpoint, or latest, or best.",
        examples=["latest", "best"],
    ),
]
AskedForm = Annotated[Form | None, Query(description="Overrides Accept.")]


def documented_drawing(description: str, *kinds: Kind) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of a route that draws; its model documents the JSON."""
    text = {"schema": {"type": "string"}}
    return {
        200: {
            "description": description,
            "content": {PNG: BINARY, NPZ: BINARY},
            "headers": {"ETag": text, "Content-Location": text},
        },
        304: {"description": "If-None-Match names what was asked for; nothing was computed."},
        **documented(
            SERVICE_PROBLEMS[errors.JobNotFound],
            SERVICE_PROBLEMS[errors.CheckpointNotFound],
            SERVICE_PROBLEMS[errors.OtherTrainer],
            *kinds,
            NOT_ACCEPTABLE,
            INVALID_QUERY,
        ),
    }


P = ParamSpec("P")


def drawing(handler: Callable[P, Response]) -> Callable[P, Coroutine[Any, Any, Response]]:
    """A plain handler that runs a model, in one of the ``DRAWN_AT_ONCE`` threads of such: what
    waits for a checkpoint, or computes, holds up nothing else."""

    @functools.wraps(handler)
    async def in_its_threads(*arguments: P.args, **named: P.kwargs) -> Response:
        call = functools.partial(handler, *arguments, **named)
        return await run_sync(call, limiter=drawing_threads())

    return in_its_threads


def drawing_threads() -> CapacityLimiter:
    """The threads for what runs a model, of the event loop that runs."""
    try:
        return _limiters.get()
    except LookupError:
        limiter = CapacityLimiter(DRAWN_AT_ONCE)
        _limiters.set(limiter)
        return limiter


def chosen_form(request: Request, asked: Form | None) -> Form:
    """The form that is asked for by name, or else by Accept; raises RefusedError (406)."""
    return asked or _FORMS[choose(request.headers.get("accept"), _FORMS)]


def check_count(n: int, form: Form, most: Mapping[Form, int]) -> None:
    """Refuse more than a form may hold."""
    if n > most[form]:
        message = f"must be at most {most[form]} as {form}; format=npz has up to {most['npz']}"
        raise RefusedError(
            INVALID_QUERY, f"/query/n {message}.", errors=[FieldError("/query/n", message)]
        )


class Drawn(Protocol):
    """What was drawn, in the forms that are not JSON."""

    def png(self) -> bytes:
        """A picture."""
        ...

    def npz(self) -> bytes:
        """A NumPy archive."""
        ...


def in_form(drawn: Drawn, form: Form, body: Callable[[], BaseModel]) -> bytes | str:
    """What was drawn in the form that was asked for; ``body`` makes the JSON."""
    match form:
        case "png":
            return drawn.png()
        case "npz":
            return drawn.npz()
        case "json":
            return body().model_dump_json()


def send_drawing(
    request: Request,
    address: tuple[str, str],
    choice: str,
    source: CheckpointInfo,
    form: Form | Literal["csv"],
    query: Mapping[str, str | int],
    etag: str,
    draw: Callable[[], bytes | str],
) -> Response:
    """What ``draw`` gives, or 304 without it; ``query`` is what determines it within its form.

    ``address`` is the job's id, and what is below the job. A checkpoint that was named by its id
    answers for ever; other choices say in Content-Location which one they are now.
    """
    tag = quoted(etag)
    headers = {"ETag": tag, **VARY, "Cache-Control": "max-age=31536000, immutable"}
    if source.id != choice:
        job_id, below = address
        headers["Cache-Control"] = "no-cache"
        there = urlencode({**query, "checkpoint": source.id, "format": form})
        headers["Content-Location"] = f"{render.job_path(job_id)}/{below}?{there}"
    if is_unchanged(request, tag):
        return Response(status_code=304, headers=headers)
    return Response(draw(), headers=headers, media_type=_TYPES[form])
