"""JSON pointers (RFC 6901) into a spec as a plain document."""

from collections.abc import Sequence
from typing import Any, TypeAlias

Document: TypeAlias = dict[str, Any]


class NoSuchPlace(LookupError):
    """A pointer leads to nothing; the message ends a sentence about it."""


def keys_of(pointer: str) -> tuple[str, ...]:
    """The keys of a pointer, unescaped."""
    return tuple(key.replace("~1", "/").replace("~0", "~") for key in pointer.split("/")[1:])


def escaped(key: str) -> str:
    """A key as one part of a pointer."""
    return key.replace("~", "~0").replace("/", "~1")


def encloses(outer: str, inner: str) -> bool:
    """Whether ``inner`` leads to or into what ``outer`` leads to."""
    return inner == outer or inner.startswith(f"{outer}/")


def parent_of(pointer: str) -> str:
    """The pointer of the object that a pointer leads into."""
    return pointer.rpartition("/")[0]


def put(document: Document, pointer: str, value: Any) -> None:
    """Set one place of a document, whose parent must be there; raises NoSuchPlace."""
    *path, last = keys_of(pointer)
    place: Any = document
    for depth, key in enumerate(path):
        place = _step(place, key, path[: depth + 1])
    match place:
        case dict():
            place[last] = value
        case list():
            place[_index(place, last)] = value
        case _:
            raise NoSuchPlace(_nothing(path, place))


def remove(document: Document, keys: Sequence[str | int]) -> None:
    """Take one key out of an object of a document, where it is."""
    place: Any = document
    for key in keys[:-1]:
        place = place[key]
    del place[keys[-1]]


def _step(place: Any, key: str, path: Sequence[str]) -> Any:
    match place:
        case dict() if key in place:
            return place[key]
        case list():
            return place[_index(place, key)]
        case None | bool() | int() | float() | str():
            raise NoSuchPlace(_nothing(path[:-1], place))
        case _:
            raise NoSuchPlace(f"leads nowhere: the spec has no {key!r} there")


def _index(place: Sequence[Any], key: str) -> int:
    if not key.isascii() or not key.isdigit() or int(key) >= len(place):
        raise NoSuchPlace(f"leads nowhere: {key!r} is no index of a list of {len(place)}")
    return int(key)


def _nothing(path: Sequence[str], place: Any) -> str:
    name = "/" + "/".join(path)
    what = "null" if place is None else "no object"
    return f"leads nowhere: {name} is {what} in the base spec; give it a value there, or tune it"
