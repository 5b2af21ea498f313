import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.downsampling import downsample
from service.jobs import MetricPoint
from tests.contract.jobstore.making import NOON


def curve(values: list[float]) -> list[MetricPoint]:
    return [MetricPoint(step, step / 10, value, NOON) for step, value in enumerate(values)]


@settings(deadline=None)
@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=80),
    st.integers(min_value=2, max_value=90),
)
def test_fewer_points_are_some_of_the_points_in_order_with_both_ends(
    values: list[float], max_points: int
) -> None:
    points = curve(values)
    kept = downsample(points, max_points)
    assert len(kept) == min(len(points), max_points)
    steps = [point.step for point in kept]
    assert steps == sorted(set(steps))
    assert all(points[point.step] is point for point in kept)
    if points:
        assert (kept[0], kept[-1]) == (points[0], points[-1])


def test_a_single_peak_stays() -> None:
    values = [0.0] * 1000
    values[617] = 5.0
    assert max(point.value for point in downsample(curve(values), 20)) == 5.0


def test_the_shape_of_a_wave_stays() -> None:
    values = [math.sin(2 * math.pi * step / 1000) for step in range(1001)]
    kept = downsample(curve(values), 41)
    # Between two kept points the curve differs from the chord by at most h²/8 · max |f″|, and no
    # two neighbours are further apart than two buckets.
    gap = max(after.step - before.step for before, after in pairwise(kept))
    assert gap <= 2 * math.ceil(999 / 39)
    bound = (2 * math.pi / 1000 * gap) ** 2 / 8
    for before, after in pairwise(kept):
        for step in range(before.step, after.step + 1):
            share = (step - before.step) / (after.step - before.step)
            chord = before.value + share * (after.value - before.value)
            assert abs(chord - values[step]) <= bound + 1e-12


def test_a_curve_needs_two_points() -> None:
    with pytest.raises(ValueError, match="two ends"):
        downsample(curve([1.0, 2.0, 3.0]), 1)
