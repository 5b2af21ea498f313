"""Figures 5 and 6: tiny trainings on drawn pictures, what is kept, and verdicts all three ways."""

import io
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import Tensor

from workers.build import resolve
from workers.data import DatasetInfo
from workers.errors import SpecMismatch
from workers.paper import costs
from workers.paper.arms import DATA, SHOWN, Pictures, Setting, Training
from workers.paper.base import Asked, Row, Scale
from workers.paper.figure5 import FIGURE_5
from workers.paper.figure6 import FIGURE_6
from workers.paper.paired import Interval, difference, is_nearer
from workers.paper.running import Standing, run_parts
from workers.paper.samples_figure import SamplesFigure
from workers.spec import PaperSpec

SCALES: tuple[Scale, ...] = ("quick", "paper")
TINY_5 = Setting(
    train=100,
    reference=30,
    repetitions=2,
    trainer={
        "kind": "delta_vae",
        "network": {"kind": "mlp", "hidden": [8], "latent_dim": 2},
        "warm_up_epochs": 1,
        "epochs": 3,
        "batch_size": 50,
        "quality": {"samples": 100, "components": 8},
    },
    rounds={"every_epochs": 1, "noise_steps": 2, "encoder_steps": 1},
)
TINY_6 = Setting(
    train=100,
    reference=30,
    repetitions=2,
    trainer={
        "network": {"kind": "conv", "channels": [4, 4], "kernel_size": 3, "latent_dim": 2},
        "epochs": 2,
        "batch_size": 50,
        "quality": {"samples": 100, "components": 8},
    },
    rounds={
        "mean_transform": {"kind": "conv", "blocks": 1, "layers": 2, "channels": 2},
        "every_epochs": 1,
        "noise_steps": 2,
        "encoder_steps": 1,
    },
)
TINY = {
    "5": replace(FIGURE_5, settings={"quick": TINY_5, "paper": TINY_5}),
    "6": replace(FIGURE_6, settings={"quick": TINY_6, "paper": TINY_6}),
}


def drawn(shape: tuple[int, ...], count: int = 130) -> Tensor:
    """Squares in grey or colour at drawn places, uint8."""
    generator = torch.Generator().manual_seed(5)
    side, wide = shape[0], shape[0] // 3
    pictures = torch.zeros(count, *shape, dtype=torch.uint8)
    for picture in pictures:
        top, left = torch.randint(side - wide, (2,), generator=generator).tolist()
        colour = torch.randint(256, shape[2:], generator=generator).to(torch.uint8)
        picture[top : top + wide, left : left + wide] = colour
    return pictures.flatten(1)


ASKED = {
    "5": Asked(data=drawn((6, 6)), shape=(6, 6)),
    "6": Asked(data=drawn((8, 8, 3)), shape=(8, 8, 3)),
}


@pytest.fixture(scope="module")
def standing() -> dict[str, Standing]:
    """Both figures computed to the end."""
    found = {}
    for name, figure in TINY.items():
        for event in run_parts(figure.parts(ASKED[name]), Standing(), lambda: False):
            if event is not None:
                found[name] = event.standing
    return found


@pytest.mark.parametrize("figure", TINY.values(), ids=lambda figure: f"figure {figure.name}")
def test_a_figure_has_a_row_for_each_arm_and_seed_and_samples_of_the_first(
    figure: SamplesFigure, standing: dict[str, Standing]
) -> None:
    asked, found = ASKED[figure.name], standing[figure.name]
    arms = [arm.name for arm in figure.arms(figure.settings["quick"])]
    assert [(row["repetition"], row["arm"]) for row in found.rows] == [
        (repetition, arm) for repetition in range(2) for arm in arms
    ]
    assert {(row["train"], row["samples"], row["reference"]) for row in found.rows} == {
        (100, 100, 26)
    }
    assert [*found.kept] == [DATA, *arms]
    assert asked.data is not None
    assert torch.equal(found.kept[DATA].flatten(1), asked.data[:SHOWN])
    for pictures in found.kept.values():
        assert (pictures.shape, pictures.dtype) == ((SHOWN, *asked.shape), torch.uint8)
    # Arms differ, and so do seeds; what they are measured against does not.
    assert len({row["frechet_pca"] for row in found.rows}) == len(found.rows)
    assert len({row["data_total_variance"] for row in found.rows}) == 1
    image = Image.open(io.BytesIO(figure.draw(found.rows, found.kept)))
    assert image.size[0] > 12 * 56
    assert bool((np.asarray(image)[:, -3:] == 255).all())  # no line of words is cut off
    summary = figure.summary(found.rows)
    assert [*summary["arms"]] == arms
    assert summary["features"] == "pixel-pca-8"


@pytest.mark.parametrize("figure", TINY.values(), ids=lambda figure: f"figure {figure.name}")
def test_a_part_repeats_itself(figure: SamplesFigure, standing: dict[str, Standing]) -> None:
    last = figure.parts(ASKED[figure.name])[-1]
    assert [said for said in last.compute() if said] == [standing[figure.name].rows[-1]]


@pytest.mark.parametrize("figure", [FIGURE_5, FIGURE_6], ids=lambda figure: f"figure {figure.name}")
def test_parts_have_names_without_data_and_jobs_that_fit_theirs(figure: SamplesFigure) -> None:
    shape = (28, 28) if figure.name == "5" else (64, 64, 3)
    rows = torch.zeros(2000, math.prod(shape), dtype=torch.uint8)
    for scale in SCALES:
        bare = Asked(scale)
        given = replace(bare, data=rows, shape=shape)
        names = [part.name for part in figure.parts(bare)]
        assert names == [part.name for part in figure.parts(given)]
        assert len(set(names)) == len(names)
        setting = figure.settings[scale]
        source = partial(figure.pictures, given, setting)
        data = source().split(setting)
        assert len(data.held_out) == min(setting.reference, 400)
        for arm in figure.arms(setting):
            training = Training(arm, setting, source, 0, 1, given)
            assert resolve(training.spec(data), data.info).trainer.epochs > 1


def test_figure_5_takes_the_digits_that_are_shipped() -> None:
    pictures = FIGURE_5.pictures(Asked(), TINY_5)
    assert (pictures.rows.shape, pictures.shape) == ((9000, 784), (28, 28))


@pytest.mark.parametrize(
    ("figure", "shape", "count", "complaint"),
    [
        (FIGURE_5, (784,), 500, "vectors"),
        (FIGURE_5, (8, 8), 90, "at least 100"),
        (FIGURE_6, (64, 64), 500, "colour"),
        (FIGURE_6, (36, 36, 3), 500, "halved 3 times"),
    ],
)
def test_other_data_are_refused(
    figure: SamplesFigure, shape: tuple[int, ...], count: int, complaint: str
) -> None:
    rows = torch.zeros(count, math.prod(shape), dtype=torch.uint8)
    part = figure.parts(Asked(data=rows, shape=shape))[0]
    with pytest.raises(SpecMismatch, match=complaint):
        next(part.compute())
    with pytest.raises(SpecMismatch, match="none are shipped"):
        next(FIGURE_6.parts(Asked())[0].compute())


def test_data_are_counted_without_those_that_the_job_holds_out() -> None:
    """Of 105 the part has 95, and a dry run must not promise more."""
    spec = PaperSpec.model_validate(
        {"dataset": {"name": "few"}, "trainer": {"kind": "paper", "figure": "5"}}
    )
    few = DatasetInfo("few", "few", (8, 8), 105, True, "sha256:0", True, "")
    with pytest.raises(SpecMismatch, match="at least 100 pictures, not 95"):
        costs.resolve(spec, few)
    assert costs.resolve(spec, replace(few, count=10_000)).dataset is not None


def test_pictures_are_halved_by_means_and_else_stay_where_they_are() -> None:
    shape, setting = (64, 64, 3), FIGURE_6.settings["quick"]
    rows = torch.randint(256, (120, 64 * 64 * 3), dtype=torch.uint8)
    halved = Pictures(rows, shape).split(setting)
    assert halved.info.shape == (32, 32, 3)
    blocks = rows.numpy().reshape(120, 32, 2, 32, 2, 3).astype(float).mean((2, 4))
    both = torch.cat((halved.held_out, halved.train)).numpy()
    np.testing.assert_array_equal(both.reshape(120, 32, 32, 3), np.rint(blocks))
    whole = Pictures(rows, shape).split(replace(setting, reduces=False))
    assert whole.held_out.data_ptr() == rows.data_ptr()
    assert torch.equal(whole.train, rows[24:])


def test_the_interval_is_that_of_student() -> None:
    values = [0.3, -1.2, 0.8, 2.5, 0.1]
    found = Interval.of(values)
    assert found is not None
    expected = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected)
    assert Interval.of([1.0]) is None


def rows_of(frechet: Sequence[float], kid: Sequence[float]) -> list[Row]:
    """An arm with these distances, and another that has 10 and 1 at every seed."""
    return [
        {"arm": arm, "repetition": repetition, "frechet_pca": f, "kid_pca": k}
        for repetition, values in enumerate(zip(frechet, kid, strict=True))
        for arm, (f, k) in (("a", values), ("b", (10.0, 1.0)))
    ]


@pytest.mark.parametrize(
    ("frechet", "kid", "holds"),
    [
        ((8.0, 8.1, 8.2), (0.5, 0.51, 0.52), True),
        ((12.0, 12.1, 12.2), (1.5, 1.51, 1.52), False),
        ((8.0, 8.1, 8.2), (1.5, 1.51, 1.52), None),
        ((8.0, 10.1, 9.2), (0.5, 0.51, 0.52), None),
        ((8.0,), (0.5,), None),
    ],
)
def test_a_claim_is_decided_where_both_distances_agree_beyond_their_intervals(
    frechet: Sequence[float], kid: Sequence[float], holds: bool | None
) -> None:
    verdict = is_nearer(rows_of(frechet, kid), "a", "b", "a is nearer")
    assert verdict.holds is holds
    assert verdict.text.startswith("a is nearer: Fréchet distance")


@pytest.mark.parametrize(
    ("name", "numbers"), [("5", ()), ("6", ("52.7 against 63.0", "46.5 against 52.7"))]
)
def test_verdicts_stand_beside_what_the_paper_has(
    name: str, numbers: tuple[str, ...], standing: dict[str, Standing]
) -> None:
    figure, rows = TINY[name], standing[name].rows
    verdicts = figure.verdicts(rows)
    assert all(" The paper: " in verdict.text for verdict in verdicts)
    for verdict, number in zip(verdicts, numbers, strict=False):
        assert f"FID {number} on CelebA" in verdict.text
    published = figure.summary(rows)["published"]
    assert published == ({"vae": 63.0, "fixed": 52.7, "learned": 46.5} if numbers else {})
    assert published.keys() <= {arm.name for arm in figure.arms(figure.settings["quick"])}


def test_differences_are_taken_at_equal_seeds() -> None:
    rows = rows_of((8.0, 8.1), (0.5, 0.6))
    forth, back = (difference(order, "a", "b", "frechet_pca") for order in (rows, rows[::-1]))
    assert forth is not None
    assert back is not None
    assert back.mean == pytest.approx(forth.mean)
    with pytest.raises(ValueError, match="other repetitions"):
        difference(rows[:-1], "a", "b", "frechet_pca")
