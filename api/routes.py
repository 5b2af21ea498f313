"""How every route reads its request: strictly."""

import json
from collections.abc import Callable, Coroutine
from email.message import Message
from typing import Any

from fastapi import Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from fastapi.params import ParamTypes
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.responses import Response

from api.conditions import is_head
from api.errors import (
    INVALID_BODY,
    INVALID_QUERY,
    MALFORMED_BODY,
    NO_SUCH_ROUTE,
    UNSUPPORTED_MEDIA_TYPE,
    RefusedError,
)
from api.pointers import field_errors, nearest, pointer
from service.errors import FieldError
from service.log_lines import about

_EXACT_MAX = 2**53  # up to here every float that is an integer is the one that was written
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class StrictRoute(APIRoute):
    """A route that refuses unknown query parameters and bodies that are not plain JSON.

    Numbers such as NaN are read, so that the error can point at their field. Keys that come twice,
    NUL and lone surrogates are refused: no two readers agree on what they mean.
    """

    def get_route_handler(self) -> Handler:
        """Put the checks around FastAPI's handler."""
        handler = super().get_route_handler()
        known = frozenset(
            str(field.alias)
            for field in get_flat_params(self.dependant)
            if getattr(field.field_info, "in_", None) == ParamTypes.query
        )
        schema: dict[str, Any] | None = None
        if self.body_field is not None:
            model: Any = self.body_field.field_info.annotation
            schema = TypeAdapter(model).json_schema()

        async def strict(request: Request) -> Response:
            given = request.path_params
            with about(job=given.get("job_id"), study=given.get("study_id")):
                return await checked(request)

        async def checked(request: Request) -> Response:
            _check_path(request)
            _check_query(request, known)
            if schema is None:
                answer = await handler(request)
                return _head_of(answer) if is_head(request) else answer
            _check_content_type(request)
            parsed = _StrictRequest(request.scope, request.receive)
            if await parsed.body():
                await parsed.json()  # here, as FastAPI hides why a body could not be read
            try:
                return await handler(parsed)
            except RequestValidationError as error:
                raise _body_problem(error, schema) from error

        return strict


def _head_of(answer: Response) -> Response:
    """The answer without its body; of a stream nobody knows how long it will be."""
    head = Response(status_code=answer.status_code, headers=answer.headers)
    if "content-length" not in answer.headers:
        del head.headers["content-length"]
    return head


class _StrictRequest(Request):
    async def json(self) -> Any:
        if not hasattr(self, "_strict_json"):
            self._strict_json = plain_json(await self.body())
        return self._strict_json


def plain_json(content: bytes) -> Any:
    """The value of a body of plain JSON; raises RefusedError."""
    try:
        value = json.loads(
            content.decode(), object_pairs_hook=_once_each, parse_float=_integer_where_it_is_one
        )
    except UnicodeDecodeError as error:
        raise RefusedError(MALFORMED_BODY, "The body is not UTF-8.") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise RefusedError(
            MALFORMED_BODY, f"The body is not JSON: {error.msg}, {where}."
        ) from error
    except RecursionError as error:
        raise RefusedError(MALFORMED_BODY, "The body is nested too deeply.") from error
    except ValueError as error:
        raise RefusedError(MALFORMED_BODY, "The body holds a number that is too long.") from error
    if found := _unusable_text(value):
        raise RefusedError(INVALID_BODY, "The body holds text that cannot be kept.", errors=found)
    return value


def _integer_where_it_is_one(text: str) -> float:
    """2.0 is an integer in JSON Schema, and many languages write it so."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) <= _EXACT_MAX else value


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        shown = twice[:80].encode("utf-8", "replace").decode()
        raise RefusedError(MALFORMED_BODY, f"The key {shown!r} comes more than once in an object.")
    return found


def _unusable_text(value: object) -> tuple[FieldError, ...]:
    """Strings and keys that hold NUL or half a surrogate pair."""
    found = []
    left: list[tuple[tuple[str | int, ...], object]] = [((), value)]
    while left:
        keys, item = left.pop()
        if isinstance(item, dict):
            found += [_refused((*keys, key)) for key in item if not _is_usable(key)]
            left += [((*keys, key), child) for key, child in item.items()]
        elif isinstance(item, list):
            left += [((*keys, index), child) for index, child in enumerate(item)]
        elif isinstance(item, str) and not _is_usable(item):
            found.append(_refused(keys))
    return tuple(found)


def _is_usable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _refused(keys: tuple[str | int, ...]) -> FieldError:
    return FieldError(pointer(keys), "must be valid Unicode without NUL")


def _check_path(request: Request) -> None:
    if not all(_is_usable(str(value)) for value in request.path_params.values()):
        raise RefusedError(NO_SUCH_ROUTE, "Nothing has a name that holds NUL.")


def _check_query(request: Request, known: frozenset[str]) -> None:
    found = [
        FieldError(pointer(("query", name)), f"unknown parameter; {nearest(name, sorted(known))}")
        for name in dict.fromkeys(request.query_params)
        if name not in known
    ]
    found += [
        FieldError(pointer(("query", name)), "must be valid Unicode without NUL")
        for name, text in request.query_params.multi_items()
        if not _is_usable(text)
    ]
    if found:
        raise RefusedError(INVALID_QUERY, f"{found[0].pointer}: {found[0].message}", errors=found)


def content_type(request: Request) -> str:
    """The media type of the body, without parameters; empty where none is given."""
    message = Message()
    message["content-type"] = request.headers.get("content-type", "")
    return message.get_content_type() if request.headers.get("content-type") else ""


def _check_content_type(request: Request) -> None:
    given = request.headers.get("content-type", "")
    message = Message()
    message["content-type"] = given or "application/json"
    subtype = message.get_content_subtype()
    is_json = message.get_content_maintype() == "application" and (
        subtype == "json" or subtype.endswith("+json")
    )
    # Without a length there is no body, and the model says what is missing.
    has_body = request.headers.get("content-length", "0") != "0" or (
        "transfer-encoding" in request.headers
    )
    if has_body and not (given and is_json):
        raise RefusedError(
            UNSUPPORTED_MEDIA_TYPE,
            "Send the body as JSON, with the header Content-Type: application/json.",
            headers={"Accept": "application/json"},
        )


def _body_problem(error: RequestValidationError, schema: dict[str, Any]) -> Exception:
    problems = error.errors()
    in_body = [
        {**problem, "loc": tuple(problem["loc"])[1:]}
        for problem in problems
        if problem["loc"][0] == "body"
    ]
    if not in_body or len(in_body) != len(problems):
        return error
    found = field_errors(in_body, error.body, schema)
    where = found[0].pointer or "The body"
    return RefusedError(INVALID_BODY, f"{where}: {found[0].message}", errors=found)
