"""What happens to every request before its route: a name, a check of who asks, a count."""

import re
import secrets
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import BODY_TOO_LARGE, CROSS_ORIGIN, FOREIGN_HOST, Kind, problem_response
from api.figures import HttpFigures

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_UPLOADS = "/v1/datasets/"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Entrance:
    """Names each request, refuses foreign ones and those that are too large, counts all.

    A web page can reach loopback by DNS rebinding; the Host header then holds the page's name. It
    can also send forms across origins; the Origin header then does.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: frozenset[str],
        max_body_bytes: int,
        max_upload_bytes: int,
        figures: HttpFigures,
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._max_body_bytes = max_body_bytes
        self._max_upload_bytes = max_upload_bytes
        self._figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        name = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {}).update(request_id=name, is_head=scope["method"] == "HEAD")
        began, status, seconds = time.perf_counter(), 500, 0.0
        # A HEAD is a GET whose body the route leaves away.
        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope

        async def named_send(message: Message) -> None:
            nonlocal status, seconds
            if message["type"] == "http.response.start":
                status, seconds = message["status"], time.perf_counter() - began
                MutableHeaders(scope=message)["X-Request-ID"] = name
            await send(message)

        try:
            refusal = self._refusal(scope["method"], scope["path"], headers)
            app = problem_response(scope, *refusal) if refusal else self._app
            await app(inner, receive, named_send)
        finally:
            route = getattr(inner.get("route"), "path", "none")
            # A method is free text of the client's; labels live for ever.
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._figures.count(method, route, status, seconds)

    def _refusal(self, method: str, path: str, headers: Headers) -> tuple[Kind, str] | None:
        if _host_name(headers.get("host", "")) not in self._hosts:
            allowed = ", ".join(sorted(self._hosts))
            return FOREIGN_HOST, f"This service answers to these names only: {allowed}."
        origin = headers.get("origin")
        if method not in _SAFE_METHODS and origin is not None and not self._is_ours(origin):
            return CROSS_ORIGIN, "Pages of other sites may not change anything here."
        length = headers.get("content-length", "0")
        is_upload = method == "PUT" and path.startswith(_UPLOADS)
        allowed_bytes = self._max_upload_bytes if is_upload else self._max_body_bytes
        if not length.isdecimal() or len(length) > 18 or int(length) > allowed_bytes:
            return BODY_TOO_LARGE, f"A body may have {allowed_bytes} bytes at most."
        return None

    def _is_ours(self, origin: str) -> bool:
        try:
            return _host_name(urlsplit(origin).netloc) in self._hosts
        except ValueError:
            return False


def _host_name(host: str) -> str:
    match = _HOST.fullmatch(host)
    return match[1].lower() if match else ""


def host_names(host: str) -> frozenset[str]:
    """The names under which a service that listens on a loopback address may be asked."""
    return LOOPBACK_NAMES | {f"[{host}]" if ":" in host else host}
