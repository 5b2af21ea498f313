"""One service at one address: requests, event streams and downloads, with their errors."""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import BaseModel

from api import bodies
from api.client.answers import check, foreign, media_type, parsed
from api.client.errors import ClientError, Unreachable
from service.access.keys import is_usable

DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT_S = 60.0
STREAM_SILENCE_S = 45.0  # three signs of life missed
NO_CONTENT, SEE_OTHER = 204, 303
SSE = "text/event-stream"
# Of a chunk of log: 20,000 lines, each with its time and level, and at most 256 KiB of text, of
# which JSON makes at most six times as much.
EVENT_BYTES_MAX = 16 << 20

Params = Mapping[str, str | int | float | bool | Sequence[str] | None]
T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream: a job's event, or ``progress``, ``gap`` or ``end``.

    ``seq`` is None for those that are not kept. ``attempt`` is the one that it belongs to.
    """

    kind: str
    data: Mapping[str, Any]
    seq: int | None = None
    attempt: int | None = None


class Connection:
    """A service at an address, asked with an API key where one is given.

    The key goes to that address alone: no redirect is followed with it.
    """

    def __init__(self, url: str, timeout_s: float, api_key: str | None) -> None:
        if api_key is not None and not is_usable(api_key):
            # Without the key in the message, which may end in a log.
            raise ClientError("the API key is none: it has spaces, other letters, or is too short")
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._http = httpx2.Client(base_url=self.url, timeout=timeout_s, headers=headers)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> httpx2.Response:
        """The answer to a request; raises ApiError, Unreachable, and ClientError where something
        else answers."""
        answer = self.ask(method, path, params, json, headers, content)
        check(self.url, answer)
        return answer

    def ask(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> httpx2.Response:
        """The answer to a request, whatever its status; raises Unreachable."""
        try:
            return self._http.request(
                method,
                path,
                params=_given(params),
                json=json,
                content=content,
                headers=dict(headers or {}),
            )
        except httpx2.TransportError as error:
            raise Unreachable(self.url, error) from error

    def get(self, model: type[T], path: str, params: Params | None = None) -> T:
        """The answer to a GET, as a model; raises as :meth:`request` does."""
        return self.parsed(model, self.request("GET", path, params=params).content)

    def delete(self, path: str) -> None:
        """Delete what is there; raises as :meth:`request` does."""
        if self.request("DELETE", path).status_code != NO_CONTENT:
            raise foreign(self.url)

    def parsed(self, model: type[T], content: bytes) -> T:
        """What the service has answered, as a model; raises ClientError."""
        return parsed(model, content, self.url)

    def follow(
        self, job_id: str, after: int, timeout_s: float | None, kinds: Sequence[str] | None
    ) -> Iterator[Event]:
        """One connection to a job's event stream; ends with it, see :meth:`JobHandle.watch`.

        Raises ApiError, Unreachable.
        """
        params: Params = {"after": after, "timeout_s": timeout_s, "kind": kinds}
        timeout = httpx2.Timeout(TIMEOUT_S, read=STREAM_SILENCE_S)
        path = f"{job_path(job_id)}/events"
        try:
            with self._http.sse(
                path, params=_given(params), timeout=timeout, max_event_size=EVENT_BYTES_MAX
            ) as source:
                if not source.response.is_success:
                    source.response.read()
                check(self.url, source.response)
                if media_type(source.response) != SSE:
                    raise foreign(self.url)
                for sent in source:
                    data = sent.json() if sent.data else None
                    if not isinstance(data, dict):
                        continue
                    if sent.event in ("progress", "gap", "end"):
                        yield Event(sent.event, data)
                    else:
                        event = self.parsed(bodies.EventBody, sent.data.encode())
                        yield Event(event.kind, event.data, event.seq, event.attempt)
        except httpx2.SSEError as error:
            # It would come again with each new connection.
            raise ClientError(f"the event stream at {self.url} cannot be read: {error}") from error
        except httpx2.TransportError as error:
            raise Unreachable(self.url, error) from error

    def upload(self, path: str, source: Path, headers: Mapping[str, str]) -> httpx2.Response:
        """The answer to a PUT of a file, which is read in pieces; raises ApiError, Unreachable.

        No time limit on the answer: a large upload is checked before it comes.
        """
        timeout = httpx2.Timeout(TIMEOUT_S, read=None)
        sent = {"Content-Type": "application/octet-stream", **headers}
        try:
            with source.open("rb") as file:
                answer = self._http.put(path, content=file, headers=sent, timeout=timeout)
        except httpx2.TransportError as error:
            raise Unreachable(self.url, error) from error
        check(self.url, answer)
        return answer

    def download(self, path: str, target: Path, *, redirect: bool = False) -> str:
        """Write an answer into a file, whole or not at all; returns its sha256 as it was read.

        With ``redirect`` the bytes come from the store itself, where the service offers that.
        Raises ClientError when it is not what its ETag says, and before it asks for a target that
        no file can be.
        """
        if target.is_dir() or not target.name:
            raise ClientError(f"{target} is a folder; name a file")
        if not target.parent.is_dir():
            raise ClientError(f"there is no folder {target.parent}; make it first")
        part = target.with_name(f".{target.name}.part")
        digest = hashlib.sha256()
        try:
            with self._opened(path, redirect) as (answer, promised), part.open("wb") as file:
                for piece in answer.iter_bytes():
                    digest.update(piece)
                    file.write(piece)
            found = f"sha256:{digest.hexdigest()}"
            if promised != found:
                raise ClientError(f"{path} arrived damaged; fetch it again")
            part.replace(target)
        except httpx2.TransportError as error:
            raise Unreachable(self.url, error) from error
        finally:
            part.unlink(missing_ok=True)
        return found

    @contextlib.contextmanager
    def _opened(self, path: str, redirect: bool) -> Iterator[tuple[httpx2.Response, str]]:
        """A file's answer, from the service or from the store, and the digest it must have."""
        params = {"redirect": "true"} if redirect else {}
        with self._http.stream("GET", path, params=params) as answer:
            is_redirected = redirect and answer.status_code == SEE_OTHER
            if not is_redirected:
                if answer.is_error:
                    answer.read()
                check(self.url, answer)
                yield answer, _tag(answer)
                return
            location = answer.headers["location"]
        # The store's own tag is no digest of the content; the service tells it to HEAD.
        promised = _tag(self.request("HEAD", path))
        with _from_store(location, self._timeout_s) as answer:
            yield answer, promised


@contextlib.contextmanager
def _from_store(location: str, timeout_s: float) -> Iterator[httpx2.Response]:
    """The answer at a signed address, asked for by nobody: no credentials, headers or cookies.

    Raises ClientError, whose message does not hold the address: it is a key to the file.
    """
    store = httpx2.URL(location).host
    hint = "or fetch it through the service, without redirect"
    try:
        with httpx2.Client(timeout=timeout_s) as http, http.stream("GET", location) as answer:
            if not answer.is_success:
                raise ClientError(
                    f"the store at {store} answered with status {answer.status_code}; "
                    f"try again, {hint}"
                )
            yield answer
    except httpx2.TransportError as error:
        raise ClientError(f"the store at {store} failed ({error}); try again, {hint}") from error


def _tag(answer: httpx2.Response) -> str:
    return str(answer.headers.get("etag", "")).strip('"')


def job_path(job_id: str) -> str:
    """The path of a job."""
    return f"/v1/jobs/{quote(job_id, safe='')}"


def study_path(study_id: str) -> str:
    """The path of a study."""
    return f"/v1/studies/{quote(study_id, safe='')}"


def dataset_path(name: str) -> str:
    """The path of a data set."""
    return f"/v1/datasets/{quote(name, safe='')}"


def _given(params: Params | None) -> dict[str, Any]:
    return {name: value for name, value in (params or {}).items() if value is not None}
