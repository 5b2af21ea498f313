"""What an answer is: what was asked for, a refusal, or of something else than the service."""

from typing import TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from api import bodies
from api.client.errors import ApiError, ClientError

RETRY_AFTER_DIGITS = 6  # longer ones are no time that anybody waits
_HTML = "text/html"  # the service sends pages only for its documentation
T = TypeVar("T", bound=BaseModel)


def media_type(answer: httpx2.Response) -> str:
    """The media type of an answer, without parameters."""
    return str(answer.headers.get("content-type", "")).partition(";")[0].strip().lower()


def check(url: str, answer: httpx2.Response) -> None:
    """Raise ApiError for a refusal, and ClientError for what is no answer of the service at
    ``url``: a redirect, which is not followed, or a page such as those on which people sign in."""
    if answer.is_error:
        raise ApiError(problem_of(answer), _retry_after_s(answer))
    if answer.has_redirect_location:
        raise ClientError(_led_elsewhere(url, answer))
    if not answer.is_success or media_type(answer) == _HTML:
        raise foreign(url)


def foreign(url: str) -> ClientError:
    """What says that something else answers."""
    return ClientError(f"what answers at {url} is not this version of spreadtrain")


def parsed(model: type[T], content: bytes, url: str) -> T:
    """What the service at ``url`` has answered, as a model; raises ClientError."""
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise foreign(url) from error


def problem_of(answer: httpx2.Response) -> bodies.Problem:
    """What the service says, or, where something else answered, what can be said."""
    try:
        return bodies.Problem.model_validate_json(answer.content)
    except ValidationError:
        return bodies.Problem(
            type="about:blank",
            title=answer.reason_phrase,
            status=answer.status_code,
            detail=f"The service answered with status {answer.status_code}.",
            retryable=answer.status_code in (429, 502, 503, 504),
        )


def _led_elsewhere(url: str, answer: httpx2.Response) -> str:
    """Where to, without the path, in which there may be a token."""
    try:
        there = answer.url.join(answer.headers["location"])
    except httpx2.InvalidURL:
        return str(foreign(url))
    here = answer.url
    if (there.scheme, there.netloc) == (here.scheme, here.netloc):
        return (
            f"{url} answered {answer.status_code} to another page of the same host; what answers "
            "there is not the service itself"
        )
    where = f"{there.scheme}://{there.netloc.decode()}"
    return f"{url} answered {answer.status_code} to {where}; use that address"


def _retry_after_s(answer: httpx2.Response) -> float | None:
    """Seconds after which the service wants to be asked again; None where it does not say."""
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isdecimal() and len(text) <= RETRY_AFTER_DIGITS else None
