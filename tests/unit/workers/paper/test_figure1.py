"""Figure 1: its quadrature, a tiny training, and verdicts both ways."""

import math
from collections.abc import Sequence
from functools import partial

import pytest
import torch

from workers.paper import claims1, figure1
from workers.paper.base import Asked, Row
from workers.paper.figure1 import FIGURE_1, Setting

TINY = Setting(shifts=5, data=12, draws=8, rows=400, epochs=60, repetitions=3)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    found = [row for gamma in figure1.GAMMAS for row in figure1._likelihood(TINY, gamma, 1)]
    found += figure1._spread_likelihood(TINY, 2)
    for repetition in range(TINY.repetitions):
        found += figure1._training(TINY, repetition, repetition)
    return [row for row in found if row is not None]


def changed(rows: Sequence[Row], kind: str, **columns: float) -> list[Row]:
    return [{**row, **columns} if row["kind"] == kind else row for row in rows]


def test_the_quadrature_is_the_mean_over_draws_of_the_latents() -> None:
    scale, shift = 0.5, 0.3
    y = torch.tensor([[0.2, -0.4, 0.5], [1.0, 0.9, -0.2]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    n = 100_000
    s, t = figure1.HALF * (2 * torch.rand(2, n, generator=generator, dtype=torch.float64) - 1)
    x = torch.stack((s, t, 0.5 * (2 * s).sin() * t.cos() + shift), 1)
    square = (y[:, None] - x).square().sum(2)
    densities = (square / (-2 * scale**2)).exp() / (2 * math.pi * scale**2) ** 1.5
    found = figure1.log_density(y, scale, shift).exp()
    error = densities.std(1) / math.sqrt(n)
    assert bool(((found - densities.mean(1)).abs() < 6 * error).all())


def test_a_tiny_figure_holds_and_is_drawn(rows: list[Row]) -> None:
    assert [verdict.holds for verdict in FIGURE_1.verdicts(rows)] == [True, True, True]
    assert FIGURE_1.draw(rows).startswith(b"\x89PNG")
    assert FIGURE_1.summary(rows)["trained"]["samples_to_surface"]["repetitions"] == 3


def test_another_seed_trains_other_models() -> None:
    seeds = []
    for seed in (0, 0, 1):
        part = FIGURE_1.parts(Asked(seed=seed))[-1]
        assert isinstance(part.compute, partial)
        seeds.append(part.compute.args[2])
    assert seeds[0] == seeds[1] != seeds[2]


def test_a_likelihood_without_a_jump_is_refuted(rows: list[Row]) -> None:
    assert claims1.jumps(changed(rows, "model_noise", nats=-2.0)).holds is False
    bounded: list[Row] = [
        {**row, "nats": max(float(row["nats"]), -3.0)} if row["kind"] == "model_noise" else row
        for row in rows
    ]
    assert claims1.jumps(bounded).holds is False


def test_a_spread_likelihood_that_is_flat_or_highest_elsewhere_is_refuted(rows: list[Row]) -> None:
    assert claims1.does_not_jump(changed(rows, "spread", nats=-2.0)).holds is False
    moved: list[Row] = [
        {**row, "shift": float(row["shift"]) + 0.6} if row["kind"] == "spread" else row
        for row in rows
    ]
    assert claims1.does_not_jump(moved).holds is False
    single = [row for row in rows if row["kind"] == "spread" and row["datum"] == 0]
    assert claims1.does_not_jump(single).holds is None


def test_a_model_that_has_learned_less_than_its_noise_is_refuted(rows: list[Row]) -> None:
    for column in ("samples_to_surface", "data_to_samples"):
        assert claims1.is_learned(changed(rows, "trained", **{column: 0.5}), 0.3).holds is False
    single = [row for row in rows if row["kind"] == "trained" and row["repetition"] == 0]
    assert claims1.is_learned(single, 0.3).holds is None
