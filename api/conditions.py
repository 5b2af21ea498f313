"""Conditional and partial requests: ETag, If-Match, If-None-Match, Range (RFC 9110, 13 and 14)."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Header, Request

from api.errors import INVALID_HEADER, RANGE_NOT_SATISFIABLE, RefusedError
from service.errors import FieldError
from service.uploads import Condition

_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.IGNORECASE)
IfVersion = Annotated[
    str | None,
    Header(
        description="Only the version with this ETag; * for any.",
        examples=['"3"', "*"],
        json_schema_extra={"pattern": r'^(\*|(W/)?"[!#-~]*")$'},
    ),
]
_PLACES = {"job": "/v1/jobs/{id}", "study": "/v1/studies/{id}"}
DIGITS_MAX = 18  # longer numbers are no size of any file


def quoted(value: str) -> str:
    """A strong entity tag."""
    return f'"{value}"'


def is_head(request: Request) -> bool:
    """Whether only the head of the answer is asked for."""
    return bool(request.scope.get("state", {}).get("is_head"))


def is_unchanged(request: Request, etag: str) -> bool:
    """Whether If-None-Match names the tag, so that the answer is 304."""
    given = request.headers.get("if-none-match")
    if given is None:
        return False
    return given.strip() == "*" or etag in {tag.removeprefix("W/") for tag in _TAG.findall(given)}


def is_expected(request: Request, etag: str) -> bool:
    """Whether If-Match, where it is given, names the tag of what is there, or any (*)."""
    given = request.headers.get("if-match")
    # A weak tag matches nothing: If-Match compares strongly.
    return given is None or given.strip() == "*" or etag in _TAG.findall(given)


def expected_version(request: Request, what: Literal["job", "study"] = "job") -> int | None:
    """The version that If-Match asks for; None when it asks for nothing, or for any.

    A tag that nothing ever has asks for version 0, which nothing has either.
    """
    given = request.headers.get("if-match")
    if given is None or given.strip() == "*":
        return None
    tags = _TAG.findall(given)
    if len(tags) != 1:
        raise RefusedError(
            INVALID_HEADER,
            f"If-Match must hold the ETag of the {what}, as GET {_PLACES[what]} answered it.",
            errors=[FieldError("/header/if-match", "must be one entity tag, or *")],
        )
    inner = tags[0].strip('"')
    return int(inner) if inner.isdecimal() and len(inner) <= DIGITS_MAX else 0


def dataset_condition(request: Request) -> Condition:
    """What If-Match and If-None-Match ask of a data set."""
    match = request.headers.get("if-match", "").strip()
    is_new = request.headers.get("if-none-match", "").strip() == "*"
    if match in ("", "*"):
        return Condition(exists=match == "*", is_new=is_new)
    # A weak tag matches nothing: If-Match compares strongly.
    tags = [tag for tag in _TAG.findall(match) if not tag.startswith("W/")]
    return Condition(frozenset(tag.strip('"') for tag in tags), exists=True, is_new=is_new)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes [start, stop) of a file of ``size`` bytes."""

    start: int
    stop: int
    size: int

    @property
    def content_range(self) -> str:
        """The value of Content-Range."""
        return f"bytes {self.start}-{self.stop - 1}/{self.size}"


def asked_range(request: Request, size: int, etag: str) -> ByteRange | None:
    """The range that is asked for; None for the whole file.

    Several ranges, other units and an If-Range with another tag get the whole file, as the RFC
    allows. Raises RefusedError (416).
    """
    match = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if match is None or match.groups() == ("", ""):
        return None
    if request.headers.get("if-range", etag) != etag:
        return None
    first, last = match.groups()
    if len(first) > DIGITS_MAX or len(last) > DIGITS_MAX:
        first, last = first[:DIGITS_MAX], last[:DIGITS_MAX]
    if not first:
        start, stop = max(size - int(last), 0), size
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < int(first):
            return None
    if start >= size or start >= stop:
        raise RefusedError(
            RANGE_NOT_SATISFIABLE,
            f"The file has {size} bytes; ask for a range inside it.",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return ByteRange(start, stop, size)
