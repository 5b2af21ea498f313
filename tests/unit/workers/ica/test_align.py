import math

import pytest
import torch

from tests.unit.workers.ica.drawing import X, Z, random
from workers.ica.align import align, amari, errors

TRUTH = random(X, Z).sign()


def test_order_and_sign_are_free() -> None:
    shuffled = -TRUTH[:, [2, 0, 1]]
    assert torch.equal(align(shuffled, TRUTH), TRUTH)
    found = errors(shuffled, TRUTH)
    assert found.relative == found.frobenius == 0
    assert found.angle_degrees == pytest.approx(0, abs=1e-5)
    assert found.amari == pytest.approx(0, abs=1e-12)


def test_scale_is_not_free_but_for_angle_and_amari() -> None:
    found = errors(1.5 * TRUTH, TRUTH)
    assert found.relative == pytest.approx(0.5)
    assert found.frobenius == pytest.approx(0.5)
    assert found.angle_degrees == pytest.approx(0, abs=1e-5)
    assert found.amari == pytest.approx(0, abs=1e-12)


def test_the_best_order_is_found_where_greedy_choice_fails() -> None:
    # cosines .9 .8 / .85 .1: taking .9 first leaves .1
    truth = torch.eye(3, dtype=torch.float64)[:, :2]
    columns = torch.tensor([[0.9, 0.85], [0.8, 0.1]]).double().T
    rest = (1 - columns.square().sum(0)).clamp_min(0).sqrt()
    estimate = torch.cat([columns, rest[None]])
    assert torch.equal(align(estimate, truth), estimate[:, [1, 0]])


def test_angles_are_means_over_the_columns() -> None:
    truth = torch.eye(2, dtype=torch.float64)
    turn = math.radians(10)
    estimate = torch.tensor([[math.cos(turn), 0.0], [math.sin(turn), 1.0]], dtype=torch.float64)
    assert errors(estimate, truth).angle_degrees == pytest.approx(5)


def test_amari_is_one_for_sources_mixed_evenly() -> None:
    even = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    assert amari(even, torch.eye(2, dtype=torch.float64)) == pytest.approx(1)
    assert amari(torch.ones(3, 1).double(), torch.ones(3, 1).double()) == 0
