"""What holds of every figure, at both scales: a plan is made before anything is computed."""

from dataclasses import replace
from typing import get_args

import pytest

from workers.data import NO_DATA, DatasetInfo
from workers.paper import costs
from workers.paper.base import Scale
from workers.paper.figures import FIGURES, TAKING_DATA
from workers.spec import PaperSpec

SHAPES = {"5": (28, 28), "6": (64, 64, 3)}  # of the data that these need, or may have
PICTURES = DatasetInfo("pictures", "Pictures", (), 202_599, True, "sha256:0", True, "")


def plan_of(
    name: str, scale: Scale, repetitions: int | None = None
) -> tuple[PaperSpec, DatasetInfo]:
    """The resolved spec of a figure, with data where it takes any, and what is known of them."""
    shape = SHAPES.get(name)
    dataset = None if shape is None else {"name": "pictures"}
    trainer = {"kind": "paper", "figure": name, "scale": scale, "repetitions": repetitions}
    spec = PaperSpec.model_validate({"dataset": dataset, "trainer": trainer})
    info = NO_DATA.info if shape is None else replace(PICTURES, shape=shape)
    return costs.resolve(spec, info), info


def test_the_figures_that_take_data_have_a_shape_here() -> None:
    assert SHAPES.keys() == TAKING_DATA


@pytest.mark.parametrize("repetitions", [None, 2])
@pytest.mark.parametrize("scale", get_args(Scale))
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_parts_with_names_of_their_own_and_costs_that_are_known_or_none(
    name: str, scale: Scale, repetitions: int | None
) -> None:
    spec, info = plan_of(name, scale, repetitions)
    parts = FIGURES[name].parts(costs.asked_of(spec))
    assert parts
    assert len({part.name for part in parts}) == len(parts) == costs.total_parts(spec)
    assert all(part.thread_s is None or part.thread_s > 0 for part in parts)
    measured = [part.thread_s for part in parts if part.thread_s is not None]
    assert costs.thread_s(spec) == (sum(measured) if len(measured) == len(parts) else None)
    needed = costs.estimate(spec, info)
    assert needed.steps == len(parts)
    assert needed.worker_memory_bytes > info.size_bytes
    assert needed.storage_bytes > 0
