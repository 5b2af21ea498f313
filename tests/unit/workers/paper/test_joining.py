"""Shares of a figure, and the whole."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from workers.paper.base import NOTHING, Asked, Row
from workers.paper.figure4 import FIGURE_4B, Setting
from workers.paper.joining import Share, joined
from workers.paper.results import files_of
from workers.paper.running import Standing, run_parts


def row(repetition: int, samples: int, method: str, error: float) -> Row:
    return {
        "gamma": 0.2,
        "samples": samples,
        "repetition": repetition,
        "method": method,
        "relative_error": error,
    }


def made_up(*repetitions: int) -> list[Row]:
    return [
        row(repetition, samples, method, (repetition + 1) / samples)
        for repetition in repetitions
        for samples in (100, 1000)
        for method in ("spread_em", "ep", "fastica")
    ]


def left(folder: Path, rows: list[Row], **asked: int | str) -> Path:
    """A folder as a job leaves it."""
    folder.mkdir()
    every = {"scale": "quick", "seed": 0, **asked}
    for file in files_of(FIGURE_4B, every, rows, NOTHING, FIGURE_4B.verdicts(rows)):
        (folder / file.name).write_bytes(file.content)
    return folder


def shares(tmp_path: Path, asked: Mapping[str, int | str] | None = None) -> list[Share]:
    later = left(tmp_path / "later", made_up(2), **(asked or {}))
    return [Share.read(later), Share.read(left(tmp_path / "first", made_up(0, 1)))]


def test_shares_in_any_order_have_the_rows_of_the_whole(tmp_path: Path) -> None:
    figure, rows = joined(shares(tmp_path))
    assert figure is FIGURE_4B
    assert list(rows) == made_up(0, 1, 2)


def test_shares_of_other_seeds_are_joined_behind_one_another(tmp_path: Path) -> None:
    later, first = shares(tmp_path, {"seed": 1})
    again = Share.read(left(tmp_path / "again", made_up(1), seed=1))
    _, rows = joined([later, again, first])
    assert list(rows) == [*made_up(0, 1), *made_up(1), *made_up(2)]


def test_a_repetition_that_two_shares_have_is_refused(tmp_path: Path) -> None:
    later, first = shares(tmp_path)
    again = Share.read(left(tmp_path / "again", made_up(1)))
    with pytest.raises(ValueError, match=r"first and .*again both have repetition 1 of seed 0"):
        joined([first, later, again])


def test_shares_of_two_scales_are_not_joined(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"later has scale paper, and .*first has scale quick"):
        joined(shares(tmp_path, {"scale": "paper"}))


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ("no JSON", "not what a job of a figure leaves"),
        ("{}", "not what a job of a figure leaves"),
        (json.dumps({"figure": "2", "asked": {"scale": "quick", "seed": 0}}), "only 4a and 4b"),
        (json.dumps({"figure": "4a", "asked": {"scale": "quick", "seed": 0}}), "no repetitions"),
    ],
)
def test_a_folder_with_other_content_is_refused(tmp_path: Path, numbers: str, says: str) -> None:
    (tmp_path / "figure.json").write_text(numbers)
    (tmp_path / "figure.csv").write_text("gamma,samples\n0.2,100\n")
    with pytest.raises(ValueError, match=says):
        Share.read(tmp_path)


def test_a_repetition_computed_alone_is_that_of_the_whole() -> None:
    setting = Setting(4, 2, (0.05,), (200,), 3, 20, ("spread_em", "fastica"))
    figure = replace(FIGURE_4B, settings={"quick": setting})

    def computed(asked: Asked) -> list[Row]:
        *_, last = (
            event
            for event in run_parts(figure.parts(asked), Standing(), lambda: False)
            if event is not None
        )
        return list(last.standing.rows)

    whole = computed(Asked())
    alone = [computed(Asked(first_repetition=number, repetitions=1)) for number in range(3)]
    assert [row for rows in alone for row in rows] == whole
