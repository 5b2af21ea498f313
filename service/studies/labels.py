"""Tuned values in few letters, as legends, ticks and notes have them."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

LETTERS = 30  # of a label at most
_KIND = "kind"


def label(value: Any, letters: int = LETTERS) -> str:
    """A value in so many letters at most; null is ``none``, and an object is told by its kind, or
    by those of its parts that have one, or by the names of all of them."""
    match value:
        case None:
            text = "none"
        case str():
            text = value
        case float():
            text = f"{value:.4g}"
        case {"kind": str(kind)}:
            text = kind
        case dict() if value:
            kinds = [
                f"{name} {part[_KIND]}"
                for name, part in value.items()
                if isinstance(part, dict) and isinstance(part.get(_KIND), str)
            ]
            text = ", ".join(kinds or value)
        case _:
            text = json.dumps(value, ensure_ascii=False)
    return _shortened(text, letters)


def labels(values: Sequence[Any], letters: int = LETTERS) -> list[str]:
    """A label for each of these; equal values have the same one, and different values never.

    Where they would, what they differ in is added, and where that is too long a number.
    """
    keys = [json.dumps(value, sort_keys=True) for value in values]
    distinct = dict(zip(keys, values, strict=True))
    found = {key: label(value, letters) for key, value in distinct.items()}
    for alike in _alike(found):
        told = _differences({key: distinct[key] for key in alike})
        for key, difference in told.items():
            if difference:
                found[key] = _shortened(f"{found[key]}, {difference}", letters)
            elif len(key) <= letters:  # a number in all its digits, text in quotes
                found[key] = key
    for key in {key for alike in _alike(found) for key in alike}:
        ending = f" ({1 + list(distinct).index(key)})"
        found[key] = _shortened(found[key], letters - len(ending)) + ending
    return [found[key] for key in keys]


def _shortened(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: letters - 1].rstrip(' ,')}…"


def _alike(found: Mapping[str, str]) -> list[list[str]]:
    """The keys that share a label, by label."""
    counts = Counter(found.values())
    return [
        [key for key, text in found.items() if text == shared]
        for shared, count in counts.items()
        if count > 1
    ]


def _differences(values: Mapping[str, Any]) -> dict[str, str]:
    """By key, the parts of each value that are not the same in all; empty for what has no parts."""
    parts = {key: dict(_parts(value)) for key, value in values.items()}
    names = dict.fromkeys(name for of in parts.values() for name in of)
    differing = [
        name
        for name in names
        if len({json.dumps(of.get(name), sort_keys=True) for of in parts.values()}) > 1
    ]
    return {
        key: ", ".join(f"{name[-1]} {label(of.get(name))}" for name in differing if name)
        for key, of in parts.items()
    }


def _parts(value: Any, name: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The values within nested objects, each by the names that lead to it."""
    if not isinstance(value, dict):
        yield name, value
        return
    for key, part in value.items():
        yield from _parts(part, (*name, key))
