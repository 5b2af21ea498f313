import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from workers.paper import claims4
from workers.paper.base import Asked, Row
from workers.paper.figure4 import FIGURE_4A, FIGURE_4B, MixtureFigure, Setting
from workers.paper.figures import FIGURES
from workers.paper.running import Done, Standing, run_parts

TINY = Setting(4, 2, (0.05, 0.5), (200,), 2, 20, ("em", "spread_em", "ep", "fastica"))


def rows_of(
    errors: Mapping[tuple[float, str], float], repetitions: int = 3, axis: str = "gamma"
) -> list[Row]:
    """Made-up rows around given errors by (γ or N, method)."""
    other = "samples" if axis == "gamma" else "gamma"
    return [
        {
            axis: place,
            other: 1,
            "repetition": repetition,
            "method": method,
            "relative_error": error * (1 + 0.01 * repetition),
        }
        for repetition in range(repetitions)
        for (place, method), error in errors.items()
    ]


def computed(figure: MixtureFigure) -> list[Row]:
    *_, last = (
        event for event in run_parts(figure.parts(Asked()), Standing(), lambda: False) if event
    )
    assert isinstance(last, Done)
    return list(last.standing.rows)


FROZEN = {(0.01, "em"): 1.0, (1.0, "em"): 0.1, (0.01, "spread_em"): 0.1, (1.0, "spread_em"): 0.1}


@pytest.mark.parametrize(("at_least", "holds"), [(1.0, True), (0.2, False), (0.1, False)])
def test_em_freezes_only_where_its_error_grows_beyond_that_of_spread_em(
    at_least: float, holds: bool
) -> None:
    verdict = claims4.em_freezes(rows_of({**FROZEN, (0.01, "em"): at_least}))
    assert verdict.holds is holds


def test_an_error_that_may_have_grown_by_chance_does_not_decide_whether_em_freezes() -> None:
    rows = rows_of({**FROZEN, (1.0, "em"): 0.9})
    wild = [
        {**row, "relative_error": 1.1} if (row["gamma"], row["repetition"]) == (1.0, 0) else row
        for row in rows
    ]
    assert claims4.em_freezes(wild).holds is None


def test_one_repetition_does_not_decide_whether_em_freezes() -> None:
    assert claims4.em_freezes(rows_of(FROZEN, repetitions=1)).holds is None


@pytest.mark.parametrize(("at_least", "holds"), [(0.1, True), (0.3, False)])
def test_spread_em_freezes_where_its_error_is_far_above_its_best(
    at_least: float, holds: bool
) -> None:
    rows = rows_of({**FROZEN, (0.01, "spread_em"): at_least})
    assert claims4.spread_em_does_not(rows).holds is holds


@pytest.mark.parametrize(("error", "holds"), [(0.12, False), (0.5, True)])
def test_fastica_fails_where_it_is_far_worse_in_most_experiments(error: float, holds: bool) -> None:
    verdict = claims4.fastica_fails(rows_of({(0.2, "ep"): 0.1, (0.2, "fastica"): error}))
    assert verdict.holds is holds


@pytest.mark.parametrize(("many", "holds"), [(0.05, True), (0.19, False)])
def test_an_error_falls_with_the_data_or_does_not(many: float, holds: bool) -> None:
    rows = rows_of({(100.0, "paper"): 0.2, (1600.0, "paper"): many}, axis="samples")
    verdict = claims4.error_falls(rows)
    assert verdict.holds is holds
    assert "N^" in verdict.text


@pytest.mark.parametrize("figure", [FIGURE_4A, FIGURE_4B], ids=lambda figure: figure.name)
def test_a_figure_computes_a_row_for_each_method_and_draws_them(figure: MixtureFigure) -> None:
    setting = TINY if figure.axis == "gamma" else replace(TINY, gammas=(0.2,), samples=(200, 400))
    rows = computed(replace(figure, settings={"quick": setting}))
    assert len(rows) == 2 * 2 * len(TINY.methods)
    assert figure.draw(rows).startswith(b"\x89PNG")
    assert figure.draw(rows) == figure.draw(rows)
    assert all(verdict.text for verdict in figure.verdicts(rows))
    assert json.loads(json.dumps(figure.summary(rows)))["errors"][0]["relative_error"]["mean"] > 0


@pytest.mark.parametrize("name", ["4a", "4b"])
def test_there_are_as_many_parts_as_repetitions_ask(name: str) -> None:
    once, twice = (FIGURES[name].parts(Asked(repetitions=count)) for count in (1, 2))
    assert len(twice) == 2 * len(once)


def test_the_published_recipe_takes_days_of_one_thread() -> None:
    seconds = [part.thread_s or 0.0 for part in FIGURES["4a"].parts(Asked("paper"))]
    assert 3 < sum(seconds) / 86_400 < 20
