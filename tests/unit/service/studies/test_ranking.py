"""Honest ranking: closed forms, a second way, and simulations with fixed seeds."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from service.studies.ranking import Mode, interval, pareto, rank, reversals, top

MODES: list[Mode] = ["min", "max"]
SEEDS = (1, 2, 3, 4, 5)


def by_seed(*values: float) -> dict[int, float]:
    return dict(zip(SEEDS, values, strict=False))


def test_the_top_are_the_best_of_what_is_a_number() -> None:
    values = {0: 3.0, 1: math.nan, 2: 1.0, 3: 2.0, 4: 1.0, 5: math.inf}
    assert top(values, 3, "min") == (2, 4, 3)
    assert top(values, 2, "max") == (0, 3)
    assert top(values, 99, "min") == (2, 4, 3, 0)


def test_an_interval_is_students() -> None:
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    # t_{2, .975} = 4.302653, s = 1
    assert found.high - found.mean == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    values = [0.3, 0.1, 0.9, 0.4]
    theirs = stats.ttest_1samp(values, 0.0).confidence_interval(0.99)
    ours = interval(values, 0.99)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    several = stats.ttest_1samp(values, 0.0).confidence_interval(1 - 0.05 / 3)
    assert interval(values, 0.95, 3).low == pytest.approx(several.low)


def test_a_single_seed_says_nothing_of_where_the_mean_lies() -> None:
    found = interval([0.5])
    assert (found.mean, found.low, found.high) == (0.5, -math.inf, math.inf)


@pytest.mark.parametrize("mode", MODES)
def test_the_set_of_the_best_follows_from_paired_tests(mode: Mode) -> None:
    sign = 1.0 if mode == "min" else -1.0
    generator = np.random.default_rng(3)
    of_seed = generator.normal(size=5) * 10
    rows = [sign * (of_seed + generator.normal(size=5) * 0.3 + gap) for gap in (0, 0.2, 0.8, 1.5)]
    fresh = {number: by_seed(*row) for number, row in enumerate(rows)}
    found = rank(fresh, {}, mode)
    alternative = "greater" if mode == "min" else "less"
    expected = {found.best}
    for number, row in enumerate(rows):
        p = stats.ttest_rel(row, rows[found.best], alternative=alternative).pvalue
        if number != found.best and p >= 0.05 / 7:  # 2·4 − 1, more than the 3 others
            expected.add(number)
    assert set(found.indistinguishable) == expected
    # Pairing sees through the seeds, which differ by far more than the configurations.
    assert 3 not in expected
    unpaired = {n: {s + 10 * n: v for s, v in row.items()} for n, row in fresh.items()}
    assert rank(unpaired, {}, mode).indistinguishable == (0, 1, 2, 3)


def test_without_shared_seeds_the_test_is_welchs() -> None:
    one, two = [1.0, 1.2, 0.9, 1.1], [2.0, 1.4, 1.9]
    p = stats.ttest_ind(two, one, equal_var=False, alternative="greater").pvalue
    fresh = {
        0: dict(zip((1, 2, 3, 4), one, strict=True)),
        1: dict(zip((5, 6, 7), two, strict=True)),
    }
    # Two are confirmed, so that the level is a third: 2·2 − 1 comparisons.
    for confidence, is_like in ((1 - 3 * p * 1.001, False), (1 - 3 * p * 0.999, True)):
        assert (1 in rank(fresh, {}, "min", confidence).indistinguishable) == is_like


def test_what_has_one_result_of_the_search_is_compared_by_the_pooled_deviation() -> None:
    fresh = {0: by_seed(1.0, 2.0, 3.0), 1: by_seed(11.0, 13.0, 12.0)}
    # s = 1 with 4 degrees of freedom; mean of the best 2; error √(4/3); two comparisons.
    limit = 2 + stats.t.isf(0.05 / 3, 4) * math.sqrt(4 / 3)
    for value, is_like in ((limit - 0.001, True), (limit + 0.001, False)):
        found = rank(fresh, {0: -9.0, 2: value, 3: 99.0, 4: math.nan}, "min")
        assert (2 in found.indistinguishable) == is_like
        assert 3 not in found.indistinguishable
        assert found.untested == (4,)
        assert found.means == {0: 2.0, 1: 12.0}


def test_few_that_are_only_searched_do_not_make_the_level_wider() -> None:
    fresh = {n: by_seed(0.0, 1.0, 2.0) for n in range(3)}
    # s = 1 with 6 degrees of freedom; the mean of the best is 1; error √(4/3).
    for others, comparisons in ((1, 5), (2, 5), (3, 5), (4, 6)):  # 2·3 − 1 until m − 1 is more
        limit = 1 + stats.t.isf(0.05 / comparisons, 6) * math.sqrt(4 / 3)
        alone = {10 + n: 99.0 for n in range(others - 1)}
        for value, is_like in ((limit - 0.001, True), (limit + 0.001, False)):
            found = rank(fresh, {**alone, 9: value}, "min")
            assert (9 in found.indistinguishable) == is_like


def test_equal_results_of_every_seed_decide_by_their_difference() -> None:
    fresh = {0: by_seed(1.0, 1.0), 1: by_seed(1.0, 1.0), 2: by_seed(1.5, 1.5)}
    found = rank(fresh, {}, "min")
    assert (found.best, found.indistinguishable) == (0, (0, 1))


def test_a_configuration_that_failed_on_a_fresh_seed_is_not_confirmed() -> None:
    fresh = {0: by_seed(1.0, math.nan), 1: by_seed(2.0, 3.0), 2: {}}
    found = rank(fresh, {0: 0.5, 1: 0.6}, "min")
    assert (found.best, found.untested) == (1, (0, 2))
    with pytest.raises(ValueError, match="no configuration"):
        rank({0: by_seed(math.nan)}, {0: 0.5}, "min")


def test_with_one_seed_nothing_can_be_told_apart() -> None:
    found = rank({0: by_seed(1.0), 1: by_seed(99.0)}, {2: 50.0}, "min")
    assert found.indistinguishable == (0, 1, 2)
    assert math.isinf(found.interval.high)


def test_the_interval_of_the_best_holds_and_the_searchs_own_does_not() -> None:
    """The winner's bias: 30 configurations that are equal, whose best on its seeds looks good."""
    generator = np.random.default_rng(0)
    repetitions, held, naive = 400, 0, 0
    for _ in range(repetitions):
        searched = generator.normal(size=(30, 5))
        values = {number: float(row.mean()) for number, row in enumerate(searched)}
        chosen = top(values, 3, "min")
        own = interval(list(searched[chosen[0]]))
        naive += own.low <= 0 <= own.high
        fresh = {number: by_seed(*generator.normal(size=5)) for number in chosen}
        found = rank(fresh, {}, "min").interval
        held += found.low <= 0 <= found.high
    error = math.sqrt(0.05 * 0.95 / repetitions)
    assert held / repetitions > 0.95 - 6 * error
    assert naive / repetitions < 0.95 - 6 * error


def test_the_true_best_is_in_the_set_and_the_set_is_not_everything() -> None:
    generator = np.random.default_rng(1)
    truth = np.array([0.0, 0.1, 0.5, 2.0, 4.0, 4.0])
    repetitions, contained, sizes = 400, 0, 0
    for _ in range(repetitions):
        of_seed = generator.normal(size=5) * 3
        results = truth[:, None] + of_seed + generator.normal(size=(6, 5)) * 0.5
        fresh = {number: by_seed(*row) for number, row in enumerate(results[:4])}
        searched = {number: float(truth[number] + generator.normal() * 3.04) for number in (4, 5)}
        found = rank(fresh, searched, "min")
        contained += 0 in found.indistinguishable
        sizes += len([number for number in found.indistinguishable if number < 4])
    error = math.sqrt(0.05 * 0.95 / repetitions)
    assert contained / repetitions > 0.95 - 6 * error
    assert sizes / repetitions < 3.2  # the configuration 4 deviations away is seldom in it


POINTS = st.dictionaries(
    st.integers(0, 30), st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12
)


@settings(deadline=None)
@given(POINTS, st.sampled_from(MODES), st.sampled_from(MODES))
def test_the_front_is_what_none_surpasses(
    points: dict[int, tuple[int, int]], first: Mode, second: Mode
) -> None:
    signs = [1 if mode == "min" else -1 for mode in (first, second)]
    costs = {n: (signs[0] * a, signs[1] * b) for n, (a, b) in points.items()}

    def surpassed(one: tuple[int, int]) -> bool:
        return any(
            other[0] <= one[0] and other[1] <= one[1] and other != one for other in costs.values()
        )

    found = pareto({n: (float(a), float(b)) for n, (a, b) in points.items()}, (first, second))
    assert set(found) == {number for number, cost in costs.items() if not surpassed(cost)}
    assert [costs[number][0] for number in found] == sorted(costs[number][0] for number in found)


def test_what_has_no_number_is_on_no_front() -> None:
    points = {0: (1.0, math.nan), 1: (2.0, 2.0), 2: (math.inf, 0.0)}
    assert pareto(points, ("min", "min")) == (1,)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=12))
def test_reversals_are_goodman_and_kruskals(pairs: list[tuple[int, int]]) -> None:
    earlier = {n: float(a) for n, (a, _) in enumerate(pairs)}
    later = {n: float(b) for n, (_, b) in enumerate(pairs)}
    found = reversals(earlier, later, "min")
    ordered = [
        (earlier[m] - earlier[n]) * (later[m] - later[n]) for n in earlier for m in earlier if m < n
    ]
    assert found.reversed_pairs == sum(product < 0 for product in ordered)
    assert found.pairs == sum(product != 0 for product in ordered)
    if len(set(earlier.values())) == len(set(later.values())) == len(pairs):
        theirs = stats.kendalltau(list(earlier.values()), list(later.values())).statistic
        assert found.gamma == pytest.approx(theirs)


def test_the_place_that_the_best_had_before_is_told() -> None:
    # As measured on MNIST: fifth of eight after 10 epochs, and first after 80.
    earlier = dict(enumerate([5.0, 1.0, 2.0, 3.0, 4.0, 6.0, 7.0, 8.0]))
    later = dict(enumerate([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]))
    found = reversals(earlier, {**later, 9: 0.0}, "min")
    assert (found.count, found.best_was, found.reversed_pairs, found.pairs) == (8, 5, 4, 28)
    assert found.gamma == pytest.approx(1 - 2 * 4 / 28)
    same = reversals(earlier, earlier, "max")
    assert (same.gamma, same.best_was) == (1.0, 1)
    with pytest.raises(ValueError, match="two configurations"):
        reversals({0: 1.0, 1: 1.0}, {0: 1.0, 1: math.nan}, "min")
