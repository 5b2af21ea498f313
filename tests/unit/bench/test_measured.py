"""The measuring program: what is run, what is skipped, and what follows from the numbers."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from tests.bench.measured.contrasts import difference, verdict
from tests.bench.measured.intervals import Interval, Sign, interval, paired
from tests.bench.measured.material import NARROW, Kept, drawn_toy, overlap, toy_axes
from tests.bench.measured.order import order
from tests.bench.measured.page import BEGIN, END, tables, written_into
from tests.bench.measured.record import Line, Record
from tests.bench.measured.running import Bench
from tests.bench.measured.studies import (
    BASE,
    COVARIANCE,
    LEARNED_MEAN,
    SCALES,
    SMALLER,
    TUNING_SEED,
    Run,
    Size,
    Study,
    best_scale,
    run_of,
)
from tests.bench.measured.together import measure_together
from workers.data import Dataset
from workers.events import Metrics
from workers.spec import TrainSpec
from workers.train import train

DOCS = Path(__file__).parents[3] / "docs"
TINY = Study(
    name="digits",
    dataset={"name": "digits"},
    network={"kind": "mlp", "hidden": [16], "latent_dim": 4},
    size=Size(4, 2, 1, 3, 2),
    scale=0.5,
    arms=((BASE, 0.5), (LEARNED_MEAN, None), (SMALLER, None), (COVARIANCE, 0.5)),
    rank=3,
    quality=(),
    samples=100,
)


def line(arm: str, seed: int, scale: float = 0.5, kid: float = 1.0, **fields: object) -> Line:
    return Line.model_validate(
        {
            "study": "mnist-10k",
            "arm": arm,
            "seed": seed,
            "scale": scale,
            "spec": f"{arm} {scale} {seed}",
            "begins_from": None,
            "data": "sha256:0",
            "steps": 1,
            "metrics": {"kid_pca": kid, "data_total_variance": 52.9},
            "samples": 5000,
            "reference_rows": 5000,
            "reference": "sha256:1",
            "extractors": ("pixel-pca-64 v1",),
            "seconds": 1.0,
            **fields,
        }
    )


def test_an_interval_is_students() -> None:
    values = [0.3, -0.1, 0.4, 0.2, 0.6]
    found = interval(values)
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert found.half_width is not None
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx(
        (low, high)
    )


def test_one_seed_has_no_interval_and_tells_nothing() -> None:
    assert interval([2.0]) == Interval(2.0, None, 1)
    assert interval([2.0]).sign is Sign.UNKNOWN
    assert "nothing follows" in verdict({"KID": interval([2.0])}, "a", "b")


def test_only_seeds_that_both_arms_have_are_paired() -> None:
    found = paired({0: 1.0, 1: 2.0, 2: 9.0}, {0: 0.5, 1: 1.0, 3: 7.0})
    assert found is not None
    assert (found.count, found.mean) == (2, 0.75)
    assert paired({0: 1.0}, {1: 1.0}) is None


def test_what_a_seed_does_to_both_arms_cancels() -> None:
    seeds = np.random.default_rng(0).normal(size=5)
    found = paired(dict(enumerate(seeds + 0.1)), dict(enumerate(seeds)))
    assert found is not None
    assert found.half_width == pytest.approx(0, abs=1e-12)
    assert found.sign is Sign.ABOVE


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    draws = np.random.default_rng(1).normal(size=(2000, 5))
    covered = sum(interval(list(row)).sign is Sign.OPEN for row in draws)
    assert abs(covered / 2000 - 0.95) < 6 * math.sqrt(0.95 * 0.05 / 2000)


def test_a_verdict_follows_from_the_sides_of_0() -> None:
    below, above, open_ = Interval(-1, 0.5, 5), Interval(1, 0.5, 5), Interval(0.1, 0.5, 5)
    assert (
        verdict({"KID": below, "FD": below}, "a", "b")
        == "a is nearer to the data by all 2 distances."
    )
    assert verdict({"KID": below, "FD": above}, "a", "b") == (
        "a is nearer to the data by KID; b is nearer to the data by FD."
    )
    assert verdict({"KID": open_, "FD": open_}, "a", "b") == (
        "the two are not told apart by any of the 2 distances."
    )
    assert verdict({"KID": open_}, "a", "b") == "the two are not told apart by KID."


def test_a_line_that_was_cut_short_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    record = Record(path)
    record.add(line(BASE, 0))
    record.add(line(BASE, 1))
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    again = Record(path)
    assert again.lines == record.lines[:1]
    assert not again.holds(record.lines[1].key)
    again.add(line(BASE, 1))
    assert path.read_bytes() == content


def test_the_best_scale_is_chosen_when_all_are_tried_and_from_those_that_did_not_diverge() -> None:
    lines = [line(BASE, TUNING_SEED, scale, kid=abs(scale - 0.35)) for scale in SCALES[:-1]]
    assert best_scale(lines, "mnist-10k", BASE) is None
    lines.append(line(BASE, TUNING_SEED, SCALES[-1], kid=0.0, failed="the loss became inf"))
    assert best_scale(lines, "mnist-10k", BASE) == 0.3


def test_the_first_seed_is_whole_before_the_next_one_begins() -> None:
    study = Study("s", {}, {}, TINY.size, 0.5, TINY.arms, is_tuned=True)
    seeds = [seed for _, seed, _ in order(study, 3)]
    last = {seed: len(seeds) - seeds[::-1].index(seed) for seed in (0, 1, TUNING_SEED)}
    assert last[TUNING_SEED] < last[0] < last[1]
    assert seeds.index(1) == last[0]


def test_tables_leave_the_tuning_seed_out_and_say_how_many_seeds_a_row_has() -> None:
    lines = [line("vae-gaussian", seed, kid=1.0 + seed) for seed in (0, 1)]
    lines += [line(BASE, seed, kid=2.0 + 1.5 * seed) for seed in (0, 1, 2)]
    lines.append(line(BASE, TUNING_SEED, kid=100.0))
    found = tables(lines)
    assert "| δ-VAE, Gaussian, σ = 0.5 | 3 | 3.5 ± 3.7 |" in found
    assert "| δ-VAE, Gaussian, σ = 0.5 − VAE, Gaussian, σ = 0.5 | 2 | 1.25 ± 3.2 |" in found
    assert "(2 seeds): the two are not told apart by KID (principal components)." in found


def test_tables_take_the_place_between_the_marks() -> None:
    page = f"above\n{BEGIN}\nold\n{END}\nbelow\n"
    once = written_into(page, "new\n")
    assert once == f"above\n{BEGIN}\n\nnew\n\n{END}\nbelow\n"
    assert written_into(once, "new\n") == once
    with pytest.raises(ValueError, match="lacks the marks"):
        written_into("no marks", "new")


def test_the_results_page_has_the_tables_of_the_file_beside_it() -> None:
    page = (DOCS / "results.md").read_text()
    assert written_into(page, tables(Record(DOCS / "results.jsonl").lines)) == page


def test_the_toys_narrow_directions_are_in_the_span_of_the_data_and_the_least() -> None:
    variances, directions = np.linalg.eigh(np.cov(drawn_toy().T))
    known = toy_axes()[:, -NARROW:]
    assert variances[0] > 0
    assert variances[NARROW - 1] < variances[NARROW] / 4
    found = np.linalg.svd(known.T @ directions[:, :NARROW], compute_uv=False)
    assert found.min() > 0.99
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=known.shape))
    assert overlap(torch.from_numpy(known[:, 3:])) == pytest.approx(1)
    assert overlap(torch.from_numpy(q)) == pytest.approx(NARROW / len(q), abs=0.1)


def measured(
    data: Dataset, kept: Kept, record: Record, only: str | None = None
) -> list[tuple[Run, Line]]:
    return list(measure_together([(TINY, data)], kept, record, 1, only, 2))


def test_a_file_is_filled_gone_on_with_and_not_measured_twice(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept")
    data = kept.named("digits")
    record = Record(tmp_path / "out.jsonl")
    assert [line.arm for _, line in measured(data, kept, record, BASE)] == [BASE]
    told = measured(data, kept, record)
    assert [run.arm for run, _ in told] == [line.arm for _, line in told]
    assert {found.arm for found in record.lines} == {arm for arm, _ in TINY.arms}
    assert len(record.lines) == len(TINY.arms)
    assert not measured(data, kept, Record(tmp_path / "out.jsonl"))

    by_arm = {found.arm: found for found in record.lines}
    gain = by_arm[LEARNED_MEAN].metrics["spread_gain"]
    assert by_arm[SMALLER].scale == pytest.approx(0.5 / gain)
    assert by_arm[SMALLER].begins_from == by_arm[LEARNED_MEAN].begins_from
    still = (data.train.amax(0) == data.train.amin(0)).sum()
    assert by_arm[COVARIANCE].metrics["still_dimensions"] == still > 0
    assert 0 < by_arm[COVARIANCE].metrics["still_share"] < 1
    assert 0 < by_arm[COVARIANCE].metrics["residual_along_q"] < data.train.shape[1]
    steps = by_arm[BASE].steps
    # One round, after epoch 3 of 4: the fork has passed those before, and none is after the last.
    assert by_arm[LEARNED_MEAN].steps == steps + TINY.size.noise_steps + TINY.size.encoder_steps
    assert by_arm[SMALLER].steps == steps + TINY.size.encoder_steps


def test_a_fork_whose_train_state_is_lost_begins_at_the_same_bits(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept")
    data = kept.named("digits")
    fork, base = (run_of(TINY, data.info, arm, 0, 0.5, []) for arm in (COVARIANCE, BASE))
    assert fork is not None
    assert base is not None
    first = Bench(data, kept).measure(fork)  # trains its parent up to there
    parent = Bench(data, kept).measure(base)
    again = Bench(data, kept).measure(fork)
    assert again.metrics == first.metrics
    assert difference({0: again}, {0: parent}, "kid_pca") is not None


def test_a_run_has_the_numbers_that_a_job_with_quality_reports(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept")
    data = kept.named("digits")
    run = run_of(TINY, data.info, BASE, 3, 0.5, [])
    assert run is not None
    found = Bench(data, kept).measure(run).metrics
    content = run.spec.model_dump()
    content["trainer"]["quality"] = {"samples": TINY.samples}
    told = [e for e in train(TrainSpec.model_validate(content), data) if isinstance(e, Metrics)]
    names = [name for name in found if name in told[-1].values]
    assert {"kid_pca", "frechet_pca", "active_units", "memorisation"} <= set(names)
    assert {name: found[name] for name in names} == {name: told[-1].values[name] for name in names}
