"""A job's events: as JSON, or as a stream that follows the job to its end."""

import json
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.sse import format_sse_event
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from api import bodies, render
from api.broadcast import Look, numbered, plain
from api.dependencies import Given, JobId, Services
from api.errors import INVALID_HEADER, INVALID_QUERY, NOT_ACCEPTABLE, SERVICE_PROBLEMS, documented
from api.jobs import json_answer
from api.negotiation import VARY, choose
from api.routes import StrictRoute
from service import errors
from service.feed import Follower
from service.jobs import JobEvent

log = logging.getLogger(__name__)
router = APIRouter(prefix="/v1/jobs", tags=["events"], route_class=StrictRoute)

SSE = "text/event-stream"
SEQ_MAX = 2**53 - 1
KEEP_ALIVE_S = 15.0
FLUSH_S = 1.0  # a follower is told at most so often, and at once of a change of state
RETRY_MS = 1000
PAGE_BYTES = 4 << 20  # of lines in a JSON answer
Kind = Literal[
    "state",
    "started",
    "first_step",
    "metrics",
    "checkpoint",
    "checkpoint_removed",
    "artifact",
    "notice",
    "log",
    "progress",
]
# Of one event, as FastAPI documents streams; a ``schema`` would be read as that of each event.
_ITEM = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "description": "Kind of the event."},
        "id": {"type": "string", "pattern": "^[0-9]+$", "description": "Its number."},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "retry": {"type": "integer", "minimum": 0},
    },
}
_EXAMPLE = (
    'event: metrics\nid: 7\ndata: {"seq":7,"at":"2026-01-01T00:00:00Z","attempt":1,'
    '"kind":"metrics","data":{"step":90,"epoch":1.0,"values":{"loss_nats":571.2}}}\n\n'
    'event: end\ndata: {"state":"succeeded","reason":"completed","message":"done"}\n\n'
)


@router.get(
    "/{job_id}/events",
    operation_id="get_job_events",
    summary="Events of a job, as JSON or as a stream",
    response_model=bodies.EventPage,
    responses={
        200: {
            "description": "Events in their order.",
            "content": {SSE: {"itemSchema": _ITEM, "example": _EXAMPLE}},
        },
        **documented(
            SERVICE_PROBLEMS[errors.JobNotFound], NOT_ACCEPTABLE, INVALID_HEADER, INVALID_QUERY
        ),
    },
)
async def get_job_events(
    job_id: JobId,
    request: Request,
    services: Given,
    after: Annotated[
        int, Query(ge=0, le=SEQ_MAX, description="Only events with a greater number.")
    ] = 0,
    limit: Annotated[int, Query(ge=1, le=1000, description="Events in a JSON answer.")] = 200,
    timeout_s: Annotated[
        float | None,
        Query(gt=0, le=86_400, description="Close a stream after so long, without ``end``."),
    ] = None,
    kind: Annotated[
        list[Kind] | None,
        Query(
            description="Only events of these kinds; may come several times. ``log`` events hold "
            "their lines only where they are asked for by this."
        ),
    ] = None,
    last_event_id: Annotated[
        int | None,
        Header(ge=0, le=SEQ_MAX, description="Resume a stream behind this event."),
    ] = None,
) -> Response:
    """Read events as JSON, or follow them with ``Accept: text/event-stream``.

    In a stream ``id`` is the event's number. ``progress`` events have none and come at most once
    a second. A ``log`` event says how much an attempt's process said; its lines come along, as
    ``entries``, with ``?kind=log``. ``gap`` says which numbers were lost. ``end`` holds the final
    state, or ``deleted``; a stream that stops without it is a broken connection: connect again
    with Last-Event-ID.
    """
    chosen = choose(request.headers.get("accept"), {"application/json": "json", SSE: "sse"})
    await run_in_threadpool(services.training.get, job_id)
    if chosen == SSE:
        begin = after if last_event_id is None else last_event_id
        stream = _Stream(services, job_id, begin, kind)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"} | VARY
        return StreamingResponse(stream.run(timeout_s), headers=headers, media_type=SSE)
    page = await run_in_threadpool(_page, services, job_id, after, limit, kind)
    return json_answer(page, headers=VARY)


def _page(
    services: Services, job_id: str, after: int, limit: int, kinds: Sequence[str] | None
) -> bodies.EventPage:
    """Events as JSON; fewer than ``limit`` where their lines are large."""
    found: list[bodies.EventBody] = []
    size_bytes = 0
    for event in services.results.events(job_id, after, limit, kinds):
        body = _body(services, job_id, event, kinds)
        size_bytes += int(event.data["size_bytes"]) if "entries" in body.data else 0
        if found and size_bytes > PAGE_BYTES:
            break
        found.append(body)
    return bodies.EventPage(events=found, next_after=found[-1].seq if found else after)


def _body(
    services: Services, job_id: str, event: JobEvent, kinds: Sequence[str] | None
) -> bodies.EventBody:
    if kinds is None or event.kind != "log":
        return render.event_body(event)
    return render.log_event_body(event, services.logs.lines_of(job_id, event))


_DELETED = plain(
    "end", bodies.EndBody(state="deleted", reason="deleted", message="The job was deleted.")
)


@dataclass(slots=True)
class _Stream:
    """One client that follows one job."""

    services: Services
    job_id: str
    after: int
    kinds: Sequence[str] | None = None
    sent_progress: bytes | None = None
    end: bytes | None = None
    is_cut_short: bool = False

    async def run(self, timeout_s: float | None) -> AsyncIterator[bytes]:
        """Everything behind ``after`` until the job ends or the time is up.

        A job may be deleted between any two reads; that is an end as well. Where the database does
        not answer, it ends without ``end``: a broken stream, which the client takes up again.
        """
        deadline = time.monotonic() + (timeout_s if timeout_s is not None else float("inf"))
        try:
            async for piece in self._pieces(deadline):
                yield piece
        except errors.JobNotFound:
            yield _DELETED
        except errors.NotReady as error:
            log.info("%s: a stream of its events was broken off: %s", self.job_id, error)

    async def _pieces(self, deadline: float) -> AsyncIterator[bytes]:
        yield format_sse_event(retry=RETRY_MS)
        with self.services.feed.follow(self.job_id) as follower:
            if (lost := await self._behind_the_end()) is not None:
                yield lost
            while True:
                is_silent = True
                async for piece in self._news(deadline):
                    is_silent = False
                    yield piece
                if self.is_cut_short:
                    return
                if self.end is not None:
                    yield self.end
                    return
                if is_silent:
                    yield format_sse_event(comment="alive")
                if not await _pause(follower, deadline):
                    return

    async def _behind_the_end(self) -> bytes | None:
        """A gap for a client that claims to know more than there is; it starts again from 0."""
        if self.after == 0:
            return None
        known = await run_in_threadpool(
            self.services.results.events, self.job_id, self.after - 1, 1
        )
        if known:
            return None
        lost, self.after = self.after, 0
        return _gap(lost, 0)

    async def _news(self, deadline: float) -> AsyncIterator[bytes]:
        """What is new, in few pieces, as each of them is a write to the socket."""
        while True:
            look = await self.services.broadcast.look(self.job_id, self.after)
            if look.events and look.events[0].seq > self.after + 1:
                yield _gap(self.after, look.events[0].seq - 1)
            progress = self._progress(look) if look.is_last else b""
            if self.kinds is None:
                told = look.whole + progress
            else:
                async for piece in self._wanted(look, self.kinds):
                    yield piece
                told = progress
            if told:
                yield told
            if look.events:
                self.after = look.events[-1].seq
            if look.is_last:
                self.end = look.end
                return
            # A batch at least is sent, so that a client gets on however short its time is.
            if time.monotonic() > deadline:
                self.is_cut_short = True
                return

    def _progress(self, look: Look) -> bytes:
        if self.kinds is not None and "progress" not in self.kinds:
            return b""
        if look.progress is None or look.progress == self.sent_progress:
            return b""
        self.sent_progress = look.progress
        return look.progress

    async def _wanted(self, look: Look, kinds: Sequence[str]) -> AsyncIterator[bytes]:
        """The events of these kinds; those with lines one by one, as they may be large."""
        plain: list[bytes] = []
        for event, piece in zip(look.events, look.pieces, strict=True):
            if event.kind not in kinds:
                continue
            if event.kind != "log":
                plain.append(piece)
                continue
            if plain:
                yield b"".join(plain)
                plain = []
            yield numbered(await run_in_threadpool(_body, self.services, self.job_id, event, kinds))
        if plain:
            yield b"".join(plain)


def _gap(after: int, resumed_after: int) -> bytes:
    data = json.dumps({"after": after, "resumed_after": resumed_after})
    return format_sse_event(event="gap", data_str=data)


async def _pause(follower: Follower, deadline: float) -> bool:
    """Wait for news worth a flush, or until a sign of life is due; False when time is up."""
    began = time.monotonic()
    wait_s = KEEP_ALIVE_S
    while (left := min(began + wait_s, deadline) - time.monotonic()) > 0:
        news = await follower.wait(left)
        if news == "urgent":
            break
        if news == "ordinary":
            wait_s = FLUSH_S  # since the last flush, which is when the pause began
    return time.monotonic() < deadline
