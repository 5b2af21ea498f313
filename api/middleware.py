"""What happens to every request before its route: a name, a check of who asks, a count."""

import logging
import re
import secrets
import time
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import BODY_TOO_LARGE, CROSS_ORIGIN, FOREIGN_HOST, Kind, problem_response
from api.figures import HttpFigures
from service.log_lines import about
from service.settings import Settings
from service.tracing import OFF, Tracing, trace_id

log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_UPLOADS = "/v1/datasets/"
_TURNED_AWAY = frozenset({401, 403, 429})
_PROBES = frozenset({"/livez", "/readyz", "/metrics"})  # every few seconds, and nobody's work
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
# Nobody's page may frame, embed or reinterpret an answer; none allows to read it across origins.
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Hosts:
    """The names by which the service may be asked.

    Where it listens on every address, an address as such is a name too: a page that was made to
    reach the service by its name server has that name in the header, and no address.
    """

    names: frozenset[str]
    any_address: bool = False

    def allow(self, name: str) -> bool:
        """Whether the service may be asked by a name as :func:`host_name` gives it."""
        return name in self.names or (self.any_address and _is_address(name))


class Entrance:
    """Names each request, refuses foreign ones and those that are too large, counts all.

    A web page can reach loopback by DNS rebinding; the Host header then holds the page's name. It
    can also send forms across origins, or load what is here as a picture or a stream of its own;
    the headers Origin and Sec-Fetch-Site then say so. A page from another port of this machine is
    foreign, too.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Hosts,
        max_body_bytes: int,
        max_upload_bytes: int,
        figures: HttpFigures,
        tracing: Tracing,
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._max_body_bytes = max_body_bytes
        self._max_upload_bytes = max_upload_bytes
        self._figures = figures
        self._tracing = tracing

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
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = name
                headers.update(_HEADERS)
            await send(message)

        tracing = OFF if scope["path"] in _PROBES else self._tracing
        with (
            tracing.span("request", headers.get("traceparent"), "server") as span,
            about(request=name, trace=trace_id(span.traceparent)),
        ):
            try:
                refusal = self._refusal(scope["method"], scope["path"], headers)
                app = problem_response(scope, *refusal) if refusal else self._app
                await app(inner, receive, named_send)
            finally:
                route = getattr(inner.get("route"), "path", "none")
                # A method is free text of the client's; labels live for ever.
                method = scope["method"] if scope["method"] in _METHODS else "other"
                self._figures.count(method, route, status, seconds)
                span.rename(f"{method} {route}")
                span.set(
                    http__request__method=method,
                    http__route=route,
                    http__response__status_code=status,
                    spreadtrain__request=name,
                )
                if status >= 500:
                    span.failed(f"answered with {status}")
                given = inner.get("path_params", {})
                with about(job=given.get("job_id"), study=given.get("study_id")):
                    # By its route, as a path is free text, too.
                    level = _worth(method, status)
                    log.log(level, "%s %s: %d after %.3f s", method, route, status, seconds)

    def _refusal(self, method: str, path: str, headers: Headers) -> tuple[Kind, str] | None:
        host = headers.get("host", "")
        if not self._hosts.allow(host_name(host)):
            allowed = ", ".join(sorted(self._hosts.names))
            return FOREIGN_HOST, (
                f"This service answers to these names only: {allowed}; "
                "SPREADTRAIN_ALLOWED_HOSTS adds others."
            )
        if _is_foreign(method, host, headers):
            return CROSS_ORIGIN, "Pages of other sites may not ask for anything here."
        length = headers.get("content-length", "0")
        is_upload = method == "PUT" and path.startswith(_UPLOADS)
        allowed_bytes = self._max_upload_bytes if is_upload else self._max_body_bytes
        if not length.isdecimal() or len(length) > 18 or int(length) > allowed_bytes:
            setting = "SPREADTRAIN_MAX_UPLOAD_BYTES" if is_upload else "SPREADTRAIN_MAX_BODY_BYTES"
            return BODY_TOO_LARGE, (
                f"A body may have {allowed_bytes:,} bytes at most. Send less at a time, and many "
                f"numbers as npz where that is taken; {setting} allows more."
            )
        return None


def _worth(method: str, status: int) -> int:
    """The level of a request's line: who only reads is worth none, nor a stranger at the door, who
    could fill the log."""
    if status >= 500:
        return logging.WARNING
    return logging.DEBUG if method in _SAFE_METHODS or status in _TURNED_AWAY else logging.INFO


def _is_foreign(method: str, host: str, headers: Headers) -> bool:
    """Whether a page of another origin asks, but for somebody who follows a link from there."""
    origin = headers.get("origin")
    if origin is not None and not _is_same(origin, host):
        return True
    site = headers.get("sec-fetch-site", "none")
    if site in ("none", "same-origin"):
        return False
    return method not in _SAFE_METHODS or headers.get("sec-fetch-mode") != "navigate"


def _is_same(origin: str, host: str) -> bool:
    """Whether an origin is the host that is asked, port and all; a proxy may have added TLS."""
    try:
        split = urlsplit(origin)
        default = {"http": 80, "https": 443}[split.scheme]
        asked = urlsplit(f"//{host}")
        ours, theirs = (asked.hostname, asked.port), (split.hostname, split.port)
    except (ValueError, KeyError):
        return False
    return (ours[0], ours[1] or default) == (theirs[0], theirs[1] or default)


def host_name(host: str) -> str:
    """The name in a header Host, without its port; empty where there is none."""
    match = _HOST.fullmatch(host)
    return match[1].lower() if match else ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def hosts_of(settings: Settings) -> Hosts:
    """The names under which a service with these settings may be asked."""
    return Hosts(LOOPBACK_NAMES | settings.host_names, settings.is_wildcard)
