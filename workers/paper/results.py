"""What a figure leaves behind: its picture, its rows as CSV, and its numbers as JSON."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workers.paper.base import Figure, Kept, Row, Verdict

PICTURE, TABLE, NUMBERS = "figure.png", "figure.csv", "figure.json"


@dataclass(frozen=True, slots=True)
class File:
    """A file by its name."""

    name: str
    media_type: str
    content: bytes


def files_of(
    figure: Figure,
    asked: Mapping[str, Any],
    rows: Sequence[Row],
    kept: Kept,
    verdicts: Sequence[Verdict],
) -> Iterator[File]:
    """The three files of a figure that is done; ``asked`` is what was asked of it, as JSON."""
    yield File(TABLE, "text/csv", csv_of(rows).encode())
    yield File(PICTURE, "image/png", figure.draw(rows, kept))
    content = {
        "figure": figure.name,
        "title": figure.title,
        "source": figure.source,
        "asked": asked,
        "verdicts": [{"holds": verdict.holds, "text": verdict.text} for verdict in verdicts],
        "summary": figure.summary(rows),
    }
    text = json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False)
    yield File(NUMBERS, "application/json", text.encode())


def _plain(value: Any) -> Any:
    """As JSON has it, which knows no infinity: null, as everywhere; the CSV has it."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case Mapping():
            return {key: _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case _:
            return value


def csv_of(rows: Sequence[Row]) -> str:
    """The rows under the union of their columns, in the order in which those come up.

    A row has nothing in a column that it lacks; numbers keep every digit.
    """
    text = io.StringIO()
    columns = dict.fromkeys(column for row in rows for column in row)
    table = csv.DictWriter(text, list(columns), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def rows_in(text: str) -> list[Row]:
    """The rows of :func:`csv_of`, equal to those that it was given; no text is a number there."""
    return [
        {column: _value(cell) for column, cell in row.items() if cell}
        for row in csv.DictReader(io.StringIO(text))
    ]


def _value(cell: str) -> float | int | str:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell


def metrics_of(rows: Sequence[Row]) -> dict[str, float]:
    """A part's floats as metrics.

    A column that has one value in all rows is named as it is, and else with the texts of a row
    behind it, such as ``relative_error_fastica``. What has several values still is a curve, of
    which the CSV tells.
    """
    whole: dict[str, list[float]] = {}
    named: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        texts = [value for value in row.values() if isinstance(value, str)]
        for column, value in row.items():
            if isinstance(value, float):
                whole.setdefault(column, []).append(value)
                named.setdefault((column, *texts), []).append(value)
    found = {column: values[0] for column, values in whole.items() if len({*values}) == 1}
    apart = {
        "_".join(name): values[0]
        for name, values in named.items()
        if name[0] not in found and len(values) == 1
    }
    return found | apart
