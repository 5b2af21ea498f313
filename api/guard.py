"""Whether a request may be served: its key, its scope, its pace, and how many there are."""

import math
import re
import time
from contextlib import ExitStack
from dataclasses import dataclass, field

import anyio
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.crowd import Crowd, Crowded, Lane
from api.errors import (
    INSUFFICIENT_SCOPE,
    KEY_NEEDED,
    OVERLOADED,
    SERVICE_PROBLEMS,
    TOO_MANY_REQUESTS,
    UNKNOWN_KEY,
    Kind,
    problem_response,
    request_id,
)
from api.scopes import PROBES, changes_something, needed_scope
from service import errors
from service.access.access import Access
from service.access.audit import Deed
from service.access.caller import ANYBODY, Caller
from service.access.keys import Keyring

KEYS_KEPT_S = 1.0  # a key that was revoked opens nothing after this
CHALLENGE = 'Bearer realm="spreadtrain"'
_TARGET_LETTERS = 500
_EVENTS = re.compile(r"/v1/jobs/[^/]+/events")


@dataclass(eq=False)
class _Refused(Exception):
    kind: Kind
    detail: str
    headers: dict[str, str] = field(default_factory=dict)


class Guard:
    """Lets in what may be served, and records what changes something before it does.

    The keys are read once a second at most. One that is not among them is looked for again, as it
    may have just been made, but by one reader at a time: wrong keys cost no more than that.
    """

    def __init__(self, app: ASGIApp, crowd: Crowd) -> None:
        self._app = app
        self._crowd = crowd
        self._keyring = Keyring(())
        self._read_at = -math.inf
        self._reading = anyio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or say why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        access = scope["app"].state.services.access
        with ExitStack() as stack:
            try:
                caller = await self._caller(access, scope)
                lane = _lane(scope)
                stack.enter_context(self._crowd.place(caller.key_id, lane))
            except _Refused as no:
                refusal = problem_response(scope, no.kind, no.detail, headers=no.headers)
            except Crowded as crowded:
                kind = TOO_MANY_REQUESTS if crowded.is_own else OVERLOADED
                refusal = problem_response(scope, kind, str(crowded))
            except errors.NotReady as error:
                not_ready = SERVICE_PROBLEMS[errors.NotReady]
                refusal = problem_response(scope, not_ready, str(error))
            else:
                scope["state"]["caller"] = caller
                if caller.key_id is None:
                    await self._app(scope, receive, send)
                elif lane is Lane.STREAM:
                    await self._stream(access, caller.key_id, scope, receive, send)
                elif changes_something(scope["method"], scope["path"]):
                    await self._recorded(access, caller, scope, receive, send)
                else:
                    await self._app(scope, receive, send)
                return
            await refusal(scope, receive, send)

    async def _caller(self, access: Access, scope: Scope) -> Caller:
        """Who asks; raises _Refused, NotReady."""
        needed = needed_scope(scope["method"], scope["path"])
        if needed is None:
            return ANYBODY
        arrived = time.monotonic()
        scheme, _, secret = Headers(scope=scope).get("authorization", "").partition(" ")
        secret = secret.strip()
        keyring = await self._keys(access, arrived - KEYS_KEPT_S)
        if keyring.is_open and secret:  # the first key may have just been made
            keyring = await self._keys(access, arrived)
        if keyring.is_open:
            return ANYBODY
        if scheme.lower() != "bearer" or not secret:
            raise _Refused(
                KEY_NEEDED,
                "Send an API key in the header Authorization: Bearer KEY; "
                "who runs the service makes one with: spreadtrain keys create",
                {"WWW-Authenticate": CHALLENGE},
            )
        key = keyring.find(secret) or (await self._keys(access, arrived)).find(secret)
        if key is None:
            raise _Refused(
                UNKNOWN_KEY,
                "There is no such API key, or it was revoked; ask for another one.",
                {"WWW-Authenticate": f'{CHALLENGE}, error="invalid_token"'},
            )
        if not key.scope.includes(needed):
            raise _Refused(
                INSUFFICIENT_SCOPE,
                f"This needs a key with the scope {needed}; that of this key is {key.scope}.",
                {"WWW-Authenticate": f'{CHALLENGE}, error="insufficient_scope", scope="{needed}"'},
            )
        per_s = key.limits.requests_per_s
        wait_s = 0.0 if per_s is None else access.rates.take(key.id, per_s)
        if wait_s > 0:
            raise _Refused(
                TOO_MANY_REQUESTS,
                f"This key may ask {per_s:g} times a second; wait, and ask again.",
                {"Retry-After": str(math.ceil(wait_s))},
            )
        return Caller.of(key)

    async def _keys(self, access: Access, since: float) -> Keyring:
        """The keys as they were at ``since`` or later; raises NotReady."""
        if self._read_at < since:
            async with self._reading:
                if self._read_at < since:  # else who had the lock has just read them
                    began = time.monotonic()
                    self._keyring = await run_in_threadpool(access.keyring)
                    self._read_at = began
        return self._keyring

    async def _recorded(
        self, access: Access, caller: Caller, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Serve what changes something: on record before, and its answer before it is given."""
        client = scope.get("client")
        deed = Deed(
            owner=caller.owner,
            key_id=caller.key_id,
            action=scope["method"],
            target=scope["path"][:_TARGET_LETTERS],
            request_id=request_id(scope),
            client="" if client is None else str(client[0]),
        )
        try:
            seq = await run_in_threadpool(access.begin, deed)
        except errors.NotReady as error:
            kind = SERVICE_PROBLEMS[errors.NotReady]
            await problem_response(scope, kind, str(error))(scope, receive, send)
            return

        async def recorded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                made = Headers(raw=message["headers"]).get("location")
                await run_in_threadpool(access.end, seq, message["status"], made)
            await send(message)

        await self._app(scope, receive, recorded_send)

    async def _stream(
        self, access: Access, key_id: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Serve a stream for as long as its key lives; then it is broken off, without an end."""
        is_started = False
        with anyio.CancelScope() as served:

            async def watched_send(message: Message) -> None:
                nonlocal is_started
                if is_started and not await self._lives(access, key_id):
                    served.cancel()  # met where the stream waits next, so that it is closed there
                    return
                await send(message)
                is_started = True

            await self._app(scope, receive, watched_send)
        if served.cancelled_caught:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _lives(self, access: Access, key_id: str) -> bool:
        try:
            keyring = await self._keys(access, time.monotonic() - KEYS_KEPT_S)
        except errors.NotReady:
            return True  # the stream itself will find that the database is away
        return keyring.holds(key_id)


def _lane(scope: Scope) -> Lane:
    if scope["path"] in PROBES:
        return Lane.PROBE
    # Also a page of events: what becomes of it is for its route to choose, in many ways.
    is_read = scope["method"] in ("GET", "HEAD")
    return Lane.STREAM if is_read and _EVENTS.fullmatch(scope["path"]) else Lane.REQUEST
