import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from workers.paper.base import NOTHING, Asked, Kept, Part, Row, Verdict
from workers.paper.figures import FIGURES
from workers.paper.results import csv_of, files_of, metrics_of, rows_in
from workers.spec import FigureName

ROWS: list[Row] = [
    {"noise": "mixed", "kl": math.inf, "js": 1 / 3, "step": 3},
    {"noise": "é, ü", "t": -1e-300, "step": -2, "js": 2.0},
]


def test_a_csv_has_every_column_that_a_row_has_and_keeps_every_digit() -> None:
    text = csv_of(ROWS)
    assert text.splitlines()[0] == "noise,kl,js,step,t"
    found = rows_in(text)
    assert found == ROWS
    for row, given in zip(found, ROWS, strict=True):
        assert {name: type(value) for name, value in row.items()} == {
            name: type(value) for name, value in given.items()
        }


class Infinite:
    """A figure whose numbers leave the reals."""

    name, title, source = "inf", "∞", "nowhere"

    def summary(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        return {"rows": [dict(row) for row in rows], "pair": (math.nan, 1.5)}

    def draw(self, rows: Sequence[Row], kept: Kept) -> bytes:
        return f"{len(rows)} rows".encode()

    def parts(self, asked: Asked) -> Sequence[Part]:
        raise NotImplementedError

    def verdicts(self, rows: Sequence[Row]) -> tuple[Verdict, ...]:
        raise NotImplementedError


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def test_the_numbers_are_plain_json_where_they_are_infinite() -> None:
    verdicts = (Verdict(True, "yes"), Verdict(None, "who knows"))
    left = files_of(Infinite(), {"scale": "quick"}, ROWS, NOTHING, verdicts)
    files = {file.name: file for file in left}
    assert files.keys() == {"figure.csv", "figure.png", "figure.json"}
    found = json.loads(files["figure.json"].content, parse_constant=refuse)
    assert found["summary"] == {
        "rows": [{"noise": "mixed", "kl": None, "js": 1 / 3, "step": 3}, dict(ROWS[1])],
        "pair": [None, 1.5],
    }
    assert found["verdicts"] == [
        {"holds": True, "text": "yes"},
        {"holds": None, "text": "who knows"},
    ]
    assert rows_in(files["figure.csv"].content.decode()) == ROWS


def test_a_parts_floats_are_metrics_by_column_or_by_column_and_texts() -> None:
    rows: list[Row] = [
        {"gamma": 0.2, "samples": 50, "method": "em", "error": 0.5, "curve": 1.0},
        {"gamma": 0.2, "samples": 50, "method": "ep", "error": 0.25, "curve": 1.0},
        {"gamma": 0.2, "samples": 50, "method": "ep", "curve": 2.0},
    ]
    assert metrics_of(rows) == {
        "gamma": 0.2,
        "error_em": 0.5,
        "error_ep": 0.25,
        "curve_em": 1.0,  # that of ep has two values
    }


def test_a_spec_can_name_the_figures_that_there_are() -> None:
    assert set(get_args(FigureName)) == FIGURES.keys()
    assert all(figure.name == name for name, figure in FIGURES.items())
