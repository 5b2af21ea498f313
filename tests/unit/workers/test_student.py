import math

import pytest
from scipy import stats

from workers.student import reach


def test_the_reach_is_students_quantile_and_bonferronis_for_several() -> None:
    for count in (2, 5, 40):
        assert reach(0.3, count) == pytest.approx(0.3 * stats.t.ppf(0.975, count - 1))
        for several in (2, 10):
            wide = 0.3 * stats.t.ppf(1 - 0.1 / (2 * several), count - 1)
            assert reach(0.3, count, confidence=0.9, comparisons=several) == pytest.approx(wide)
    assert reach(0.3, 1) == math.inf
