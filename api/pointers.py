"""From pydantic's errors to JSON pointers into the body, with what is allowed there.

A pydantic location holds the tags of unions, which are not keys of the body. So body, location
and JSON Schema are walked together: at a union the location's next part names the branch, anywhere
else it is a key or an index (RFC 6901).
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.errors import FieldError
from service.studies.pointers import escaped
from service.validation import plain_message

Schema = Mapping[str, Any]
ERRORS_MAX = 20  # what a person can read; the rest shows when these are mended
_TRAINER_KIND = "trainer_kind"  # the specs of trainers are told apart by what is within
_UNION_KINDS = ("union_tag_invalid", "union_tag_not_found", "dataset_kind")


@dataclass(frozen=True, slots=True)
class _Place:
    """A place in the body: its keys, what is there, its schema and that of its parent."""

    keys: tuple[str | int, ...]
    value: Any
    schema: Schema
    parent: Schema


def pointer(keys: Sequence[str | int]) -> str:
    """The JSON pointer of a path of keys and indices."""
    return "".join(f"/{escaped(str(key))}" for key in keys).encode("utf-8", "replace").decode()


def field_errors(
    problems: Sequence[Mapping[str, Any]], body: object, schema: Schema
) -> tuple[FieldError, ...]:
    """What is wrong with ``body`` against a model whose JSON Schema is ``schema``.

    ``problems`` are pydantic's, with locations that begin at the body.
    """
    found = []
    for problem in problems[:ERRORS_MAX]:
        place = _walk(tuple(problem["loc"]), body, schema)
        found.append(_explain(problem, place, schema))
    return tuple(found)


def nearest(name: object, allowed: Sequence[str]) -> str:
    """A hint at the allowed name that is meant, or all of them."""
    close = difflib.get_close_matches(str(name), allowed, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"allowed are: {', '.join(allowed)}" if allowed else "nothing is allowed here"


def _explain(problem: Mapping[str, Any], place: _Place, root: Schema) -> FieldError:
    kind = problem["type"]
    if kind == "extra_forbidden":
        allowed = sorted(_resolve(place.parent, root).get("properties", {}))
        message = f"unknown key {_shown(place.keys[-1])}; {nearest(place.keys[-1], allowed)}"
        return FieldError(pointer(place.keys), message)
    if kind == _TRAINER_KIND:
        return _explain_trainer(place, root)
    if kind in _UNION_KINDS:
        return _explain_union(place.keys, place.value, _kinds_of(place.schema, root))
    return FieldError(pointer(place.keys), plain_message(problem))


def _explain_trainer(place: _Place, root: Schema) -> FieldError:
    """The branches of a spec are known by their trainers, each of which may be a union too."""
    trainers = [branch["properties"]["trainer"] for branch in _branches(place.schema, root)]
    kinds = [kind for trainer in trainers for kind in _kinds_of(_resolve(trainer, root), root)]
    return _explain_union((*place.keys, "trainer"), _child(place.value, "trainer"), kinds)


def _explain_union(keys: tuple[str | int, ...], value: Any, kinds: Sequence[str]) -> FieldError:
    if not isinstance(value, dict):
        return FieldError(pointer(keys), f"must be an object with a kind: {', '.join(kinds)}")
    message = f"must be one of: {', '.join(kinds)}"
    if "kind" not in value:
        message = f"is required; {message}"
    elif difflib.get_close_matches(str(value["kind"]), kinds, n=1):
        message += f"; {nearest(value['kind'], kinds)}"
    return FieldError(pointer((*keys, "kind")), message)


def _shown(key: object) -> str:
    text = str(key)[:80].encode("utf-8", "replace").decode()
    return repr(text)


def _walk(location: tuple[str | int, ...], body: object, root: Schema) -> _Place:
    place = _Place((), body, root, root)
    for part in location:
        if part == "[key]":  # a wrong key of a mapping; its pointer is that of the entry
            continue
        schema = _resolve(place.schema, root)
        if "oneOf" in schema:
            place = _Place(place.keys, place.value, _branch(schema, part, place.value, root), {})
            continue
        place = _Place(
            (*place.keys, part), _child(place.value, part), _sub_schema(schema, part), schema
        )
    return _Place(place.keys, place.value, _resolve(place.schema, root), place.parent)


def _child(value: object, part: str | int) -> object:
    if isinstance(value, dict):
        return value.get(part)
    if isinstance(value, list) and isinstance(part, int) and part < len(value):
        return value[part]
    return None


def _sub_schema(schema: Schema, part: str | int) -> Schema:
    if isinstance(part, str):
        found = schema.get("properties", {}).get(part) or _pattern_schema(schema, part)
    else:
        fixed = schema.get("prefixItems", ())
        found = fixed[part] if part < len(fixed) else schema.get("items")
    return found if isinstance(found, dict) else {}


def _pattern_schema(schema: Schema, key: str) -> object:
    """The schema of the values of a mapping whose keys have a pattern."""
    patterns = schema.get("patternProperties", {})
    return next((patterns[pattern] for pattern in patterns if re.search(pattern, key)), None)


def _resolve(schema: Schema, root: Schema) -> Schema:
    """The schema behind references and behind "or null"."""
    while True:
        if "$ref" in schema:
            schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
        elif "anyOf" in schema:
            schema = next(s for s in schema["anyOf"] if s.get("type") != "null")
        else:
            return schema


def _branches(schema: Schema, root: Schema) -> list[Schema]:
    return [_resolve(branch, root) for branch in schema.get("oneOf", ())]


def _kinds_of(schema: Schema, root: Schema) -> list[str]:
    """The kinds of a union, or the one of a model that stands alone."""
    branches = _branches(schema, root) or [schema]
    return [kind for branch in branches for kind in _kinds(branch)]


def _kinds(branch: Schema) -> list[str]:
    kind = branch["properties"]["kind"]
    return list(kind.get("enum", (kind.get("const"),)))


def _branch(schema: Schema, tag: object, value: object, root: Schema) -> Schema:
    """The branch of a union that a tag names, or else the one that the body's kind names."""
    mapping = schema.get("discriminator", {}).get("mapping", {})
    if tag in mapping:
        return _resolve({"$ref": mapping[tag]}, root)
    if any(branch.get("$ref") == f"#/$defs/{tag}" for branch in schema["oneOf"]):
        return _resolve({"$ref": f"#/$defs/{tag}"}, root)
    named = value.get("kind") if isinstance(value, dict) else None
    branches = _branches(schema, root)
    return next((b for b in branches if named in _kinds(b)), branches[0])
