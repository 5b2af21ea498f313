"""The replay of studies over a recorded grid: what they cost, and what they find."""

import math

import pytest

from service.studies.presets import KIND, REDUCTION_FACTOR
from tests.bench.choice.__main__ import GRID
from tests.bench.choice.page import METRICS, tables
from tests.bench.choice.recording import EPOCHS, KINDS, Row, Rung, rows_of, wanted
from tests.bench.choice.replaying import AT_ONCE, METRIC, NOISES, replayed
from tests.bench.choice.showing import curve_of
from tests.bench.measured.page import written_into

DATA = "mnist-10k"
LAST = EPOCHS[DATA]
SEEDS = 6


def grid(best: float, early_best: float, seeds: int = SEEDS) -> list[Row]:
    """Distances without noise: up to the last rung another scale may look best."""

    def distance(kind: str, scale: float, epoch: int) -> float:
        centre = best if epoch == LAST else early_best
        return abs(math.log(scale / centre)) + KINDS.index(kind)

    ends = (1, LAST // 3, 2 * LAST // 3, LAST)
    rows = []
    for data, kind, scale, seed in wanted([DATA]):
        rungs = tuple(
            Rung(
                epoch=epoch,
                metrics={METRIC: distance(kind, scale, epoch)},
                train_s=float(epoch - before),
                evaluate_s=0.5,
            )
            for before, epoch in zip((0, *ends), ends, strict=False)
        )
        if seed < seeds:
            rows.append(Row(data=data, kind=kind, scale=scale, seed=seed, rungs=rungs))
    return rows


@pytest.mark.parametrize("at_once", AT_ONCE)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_is_best_from_the_first_rung_on_is_found_at_less_than_the_full_cost(
    seed: int, at_once: int
) -> None:
    found = replayed(DATA, grid(0.3, 0.3), seed, SEEDS, at_once)
    assert found.best == ("gaussian", 0.3)
    assert (found.regret, found.holds) == (0, True)
    # Every noise has its first third; a few of them, and those that came first, the rest.
    least = (1 + 2 * (len(NOISES) // REDUCTION_FACTOR) / len(NOISES)) / 3
    assert least - 1e-9 <= found.epochs < 1
    assert found.epochs < found.seconds < found.whole < 1


def test_regret_is_that_on_seeds_that_chose_nothing() -> None:
    """The fresh ones prefer 0.2 a little; on those that are left, it is much worse than 0.3."""
    rows = []
    for row in grid(0.3, 0.3, seeds=8):
        costs = {0.2: 0.0, 0.3: 0.01} if row.seed in range(1, 6) else {0.2: 0.1, 0.3: 0.0}
        if row.kind == "gaussian" and row.scale in costs:
            metrics = {METRIC: costs[row.scale] - 1}
            rungs = tuple(r.model_copy(update={"metrics": metrics}) for r in row.rungs)
            row = row.model_copy(update={"rungs": rungs})
        rows.append(row)
    found = replayed(DATA, rows, 0, 8)
    assert found.best == ("gaussian", 0.2)
    assert found.regret == pytest.approx(0.1)
    assert found.error == pytest.approx(0.0, abs=1e-9)


def test_time_is_that_to_the_end_of_the_last_of_so_many_at_one_time() -> None:
    """A second for each epoch and half of one for each of four measurements: two come with the
    first third of the epochs, and one with each of the others."""
    alone, pairs = (replayed(DATA, grid(0.3, 0.3), 0, SEEDS, at_once) for at_once in AT_ONCE)
    for found, at_once in ((alone, 1), (pairs, 2)):
        more = round(found.epochs * len(NOISES) * 3) - len(NOISES)  # thirds beyond the first ones
        work = len(NOISES) * (LAST / 3 + 1) + more * (LAST / 3 + 0.5)
        share = work / (len(NOISES) * (LAST + 2))
        if at_once == 1:
            assert found.seconds == pytest.approx(share)
        else:  # at its end one of two may have nothing to do
            assert share - 1e-9 <= found.seconds < share + 2 / len(NOISES)


def test_what_looks_worst_at_the_rung_is_missed_and_that_is_seen() -> None:
    rows = grid(1.0, 0.05)
    found = [replayed(DATA, rows, seed, SEEDS) for seed in range(SEEDS)]
    missed = [one for one in found if one.best != ("gaussian", 1.0)]
    assert missed
    assert all(one.regret > 0 for one in missed)
    assert not any(one.holds for one in missed)


def test_the_curve_is_the_services_and_lowest_where_the_grid_is() -> None:
    found = curve_of(DATA, grid(0.3, 0.05))
    lowest = {
        process.where[KIND]: process.places[0][int(process.mean.argmin())]
        for process in found.processes
    }
    assert lowest == {
        "gaussian": pytest.approx(0.3, rel=0.1),
        "laplace": pytest.approx(0.3, rel=0.1),
    }
    assert len(found.points) == len(NOISES) * SEEDS
    assert any("Ranks reverse" in note for note in found.notes)


def test_the_page_has_the_tables_of_the_file_beside_it() -> None:
    page = (GRID.parent / "noise.md").read_text()
    assert written_into(page, tables(rows_of(GRID))) == page


def test_the_best_noise_is_first_by_all_measures_and_bold_by_each() -> None:
    rows = [
        row.model_copy(
            update={
                "rungs": tuple(
                    rung.model_copy(
                        update={
                            "metrics": {
                                name: rung.metrics[METRIC] * (1 if is_less_better else -1)
                                for name, (_, is_less_better) in METRICS.items()
                            }
                        }
                    )
                    for rung in row.rungs
                )
            }
        )
        for row in grid(0.3, 0.3)
    ]
    found = tables(rows)
    assert (
        found.partition("### All measures together")[2]
        .split("|")[9]
        .strip()
        .startswith("gaussian, σ = 0.3")
    )
    (best,) = [
        line
        for line in found.partition("**gaussian**")[2].partition("**laplace**")[0].splitlines()
        if "**" in line
    ]
    assert best.startswith("| σ = 0.3 |")
    assert best.count("**") == 2 * len(METRICS)
