import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from workers.build import resolve
from workers.costs import estimate
from workers.data import load
from workers.errors import SpecMismatch
from workers.events import Artifact, Event, Metrics
from workers.quality import (
    PixelPca,
    frechet_distance,
    kid,
    memorisation,
    mmd,
    sliced_wasserstein,
    support,
)
from workers.quality.neighbours import nearest_distances
from workers.quality.report import Measure, _distances
from workers.spec import TrainSpec
from workers.train import train


def draws(rows: int, features: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(rows, features, generator=generator, dtype=torch.float64)


def test_the_frechet_distance_of_identical_sets_is_0() -> None:
    x = draws(400, 5, 1)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)


def test_the_frechet_distance_of_diagonal_gaussians_has_its_closed_form() -> None:
    """Σ (m₁ − m₂)² + (s₁ − s₂)², for samples with exactly these moments."""
    white = draws(500, 3, 2)
    white = white - white.mean(0)
    white = white @ torch.linalg.inv(torch.linalg.cholesky(white.T.cov())).T
    m1, s1 = torch.tensor([0.0, 1.0, 2.0]).double(), torch.tensor([1.0, 2.0, 0.5]).double()
    m2, s2 = torch.tensor([0.5, 1.0, 0.0]).double(), torch.tensor([0.3, 1.0, 1.5]).double()
    expected = ((m1 - m2).square() + (s1 - s2).square()).sum().item()
    assert frechet_distance(white * s1 + m1, white * s2 + m2) == pytest.approx(expected)


def test_the_frechet_distance_is_that_of_the_matrix_root() -> None:
    a, b = draws(300, 4, 1) @ draws(4, 4, 3), draws(200, 4, 2, shift=0.3)
    c1, c2 = np.cov(a.numpy().T), np.cov(b.numpy().T)
    root = scipy.linalg.sqrtm(c1 @ c2).real
    expected = ((a.mean(0) - b.mean(0)).square().sum().item()) + np.trace(c1 + c2 - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected)
    assert frechet_distance(a[:, :1], b[:, :1]) > 0


@pytest.mark.parametrize("distance", [kid, mmd])
def test_kernel_distances_are_unbiased_with_an_honest_error(distance: Any) -> None:
    found = [distance(draws(1000, 3, seed), draws(1000, 3, 1000 + seed)) for seed in range(40)]
    values = np.array([e.value for e in found])
    # Equal distributions: the mean of 40 estimates is 0 within its own error.
    assert abs(values.mean()) < 6 * values.std(ddof=1) / math.sqrt(40)
    reported = np.mean([e.standard_error for e in found])
    assert values.std(ddof=1) == pytest.approx(reported, rel=0.6)
    far = distance(draws(1000, 3, 1), draws(1000, 3, 2, shift=0.5))
    assert far.value > 6 * far.standard_error
    assert far.rows == 1000


@pytest.mark.parametrize("distance", [kid, mmd])
def test_the_error_of_few_rows_covers_equal_distributions(distance: Any) -> None:
    found = [distance(draws(180, 3, seed), draws(180, 3, 1000 + seed)) for seed in range(200)]
    missed = sum(abs(e.value) > 1.96 * e.standard_error for e in found)
    # Student's tails of 9 degrees of freedom, 8 %, and six standard errors.
    assert missed / 200 < 0.08 + 6 * math.sqrt(0.08 * 0.92 / 200)
    assert all(e.rows == 180 for e in found)


@pytest.mark.parametrize("rows", [2500, 5000])
def test_blocks_of_many_rows_have_250(rows: int) -> None:
    a, b = draws(rows, 2, 1), draws(rows, 2, 2)

    def block(at: int) -> float:
        x, y = (((v[at : at + 250] @ w[at : at + 250].T / 2 + 1) ** 3) for v, w in ((a, a), (b, b)))
        within = (x.sum() - x.trace() + y.sum() - y.trace()) / (250 * 249)
        return float(within - 2 * ((a[at : at + 250] @ b[at : at + 250].T / 2 + 1) ** 3).mean())

    values = [block(at) for at in range(0, rows, 250)]
    found = kid(a, b)
    assert found.value == pytest.approx(np.mean(values))
    assert found.standard_error == pytest.approx(scipy.stats.sem(values))


def test_the_gaussian_kernel_distance_of_rows_that_are_mostly_equal_is_a_number() -> None:
    rows = torch.zeros(100, 3)
    mostly = torch.cat((rows[:80], draws(20, 3, 1).float()))
    for second in (rows, mostly):
        assert mmd(draws(100, 3, 2), second).value > 0.1 > abs(mmd(second, second).value)


def test_distances_of_equal_distributions_say_that_they_are_too_large() -> None:
    measures: dict[str, Measure] = {}
    a, b = draws(100, 2, 1), draws(100, 2, 2)
    for _ in _distances(measures, a, b, PixelPca(b, 2)):
        pass
    assert measures["sliced_wasserstein_pca"].value > 0.05
    for name in ("frechet_pca", "sliced_wasserstein_pca"):
        assert "too large from 100 rows in 2 features" in str(measures[name].biased)
    for name in ("precision_pca", "recall_pca", "density_pca", "coverage_pca"):
        assert "compare equal numbers only" in str(measures[name].biased)
    for name in ("kid_pca", "mmd_pca"):
        assert measures[name].biased is None


def test_the_cubic_kernel_distance_has_the_value_of_its_moments() -> None:
    """k = (xy + 1)³ in one dimension: Σ_j C(3,j) (E xʲ − E yʲ)²."""
    a, b = draws(60_000, 1, 1), draws(60_000, 1, 2, shift=0.4)
    mean = 0.4
    moments = [(0.0, mean), (1.0, 1 + mean**2), (0.0, 3 * mean + mean**3)]
    expected = sum(math.comb(3, j + 1) * (x - y) ** 2 for j, (x, y) in enumerate(moments))
    found = kid(a, b)
    assert abs(found.value - expected) < 6 * found.standard_error


def test_the_sliced_distance_in_one_dimension_is_wasserstein_s() -> None:
    a, b = draws(500, 1, 1), draws(500, 1, 2, shift=0.7, scale=1.5)
    expected = math.sqrt(np.mean((np.sort(a.numpy(), 0) - np.sort(b.numpy(), 0)) ** 2))
    assert sliced_wasserstein(a, b) == pytest.approx(expected)
    assert expected >= scipy.stats.wasserstein_distance(a.numpy()[:, 0], b.numpy()[:, 0])
    # A shift by d is seen as d·|cos| by each direction: √(d²/F) in the mean.
    x = draws(400, 6, 3)
    assert sliced_wasserstein(x, x + 2 / math.sqrt(6)) == pytest.approx(2 / math.sqrt(6), rel=0.2)


def test_precision_and_recall_density_and_coverage_follow_their_definitions() -> None:
    samples, data = draws(120, 2, 1, scale=0.7), draws(150, 2, 2)
    found = support(samples, data)
    for k, name in ((3, "precision"), (3, "recall"), (5, "coverage"), (5, "density")):
        base, other = (samples, data) if name == "recall" else (data, samples)
        balls = NearestNeighbors(n_neighbors=k + 1).fit(base.numpy())
        radius = balls.kneighbors(base.numpy())[0][:, -1]
        inside = torch.cdist(other, base) <= torch.from_numpy(radius)
        expected = {
            "precision": inside.any(1).double().mean(),
            "recall": inside.any(1).double().mean(),
            "coverage": inside.any(0).double().mean(),
            "density": inside.double().sum(1).mean() / k,
        }[name]
        assert getattr(found, name) == pytest.approx(expected.item())


def test_a_model_of_one_mode_is_precise_and_recalls_little() -> None:
    modes = torch.tensor([[-5.0, 0.0], [5.0, 0.0]], dtype=torch.float64)
    data = draws(400, 2, 1) + modes.repeat(200, 1)
    one = support(draws(400, 2, 2) + modes[0], data)
    both = support(draws(400, 2, 3) + modes.repeat(200, 1), data)
    assert one.precision > 0.9
    assert both.precision > 0.9
    assert one.recall < 0.6 < 0.9 < both.recall
    assert one.coverage < 0.6 < 0.9 < both.coverage
    assert both.density == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_copies_of_training_data_are_noticed(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    rows = (255 * torch.rand(3000, 16, generator=generator)).to(dtype)
    train_rows, held_out = rows[:2800], rows[2800:]
    distances = [
        list(nearest_distances(x, train_rows))[-1] for x in (train_rows[100:300].clone(), held_out)
    ]
    # A distance through a product of matrices is exact to √ε of the length of the rows.
    assert distances[0].max().item() < 1e-6 * rows.double().norm(dim=1).max().item()
    assert memorisation(distances[0], distances[1]) < 1e-5
    exact = (held_out.double()[:, None] - train_rows.double()).norm(dim=-1).amin(1)
    exact = exact / 255 if dtype == torch.uint8 else exact
    torch.testing.assert_close(distances[1], exact, rtol=1e-6, atol=1e-6)
    assert memorisation(distances[1], distances[1]) == 1


def spec_of(**quality: Any) -> TrainSpec:
    return TrainSpec.model_validate(
        {
            "dataset": {"name": "digits"},
            "trainer": {
                "kind": "delta_vae",
                "network": {"kind": "mlp", "hidden": [16], "latent_dim": 3},
                "epochs": 3,
                "batch_size": 256,
                "quality": {"samples": 300, "components": 10, **quality},
            },
            "checkpoint_at_epochs": [1],
        }
    )


def reports(events: list[Event]) -> list[tuple[float, dict[str, Any]]]:
    return [
        (event.epoch, json.loads(event.content))
        for event in events
        if isinstance(event, Artifact) and event.name.startswith("quality/")
    ]


@pytest.mark.parametrize(("at", "epochs"), [("end", [3]), ("checkpoints", [1, 3])])
def test_a_run_measures_its_samples_and_says_with_what(at: str, epochs: list[int]) -> None:
    spec = spec_of(at=at)
    data = load(spec.dataset, Path("unused"))
    events = [*train(spec, data)]
    found = reports(events)
    assert [epoch for epoch, _ in found] == epochs
    report = found[-1][1]
    measures = report["measures"]
    assert report["reference"].startswith("sha256:")
    assert measures["frechet_pca"]["space"] == "pixel-pca-10"
    assert (measures["frechet_pca"]["samples"], measures["frechet_pca"]["reference"]) == (300, 180)
    assert "too large" in measures["frechet_pca"]["biased"]
    assert measures["kid_pca"]["biased"] is None
    last = [event.values for event in events if isinstance(event, Metrics)][-1]
    assert last["kid_pca"] == measures["kid_pca"]["value"]
    assert last["kid_pca_standard_error"] == measures["kid_pca"]["standard_error"]
    names = {"frechet_pca", "kid_pca", "mmd_pca", "sliced_wasserstein_pca", "precision_pca"}
    assert names | {"recall_pca", "density_pca", "coverage_pca"} <= last.keys()
    assert last["memorisation"] > 0.1
    assert 0 < last["active_units"] <= 3
    again = reports([*train(spec, data)])
    assert again == found


def test_measuring_does_not_change_what_is_trained() -> None:
    spec = spec_of()
    bare = TrainSpec.model_validate(
        {**spec.model_dump(), "trainer": {**spec.trainer.model_dump(), "quality": None}}
    )
    data = load(spec.dataset, Path("unused"))
    one, other = (
        [e.values for e in train(s, data) if isinstance(e, Metrics)][-1] for s in (spec, bare)
    )
    assert one["held_out_elbo_nats"] == other["held_out_elbo_nats"]
    about = [estimate(resolve(s, data.info), data.info) for s in (spec, bare)]
    assert about[0].worker_memory_bytes > about[1].worker_memory_bytes


def test_better_training_measures_better() -> None:
    """Thirty epochs against one, on the same reference."""
    spec = spec_of(at="checkpoints", samples=1000)
    longer = spec.model_copy(
        update={
            "trainer": spec.trainer.model_copy(update={"epochs": 30}),
            "checkpoint_every_epochs": 30,
        }
    )
    events = [*train(longer, load(spec.dataset, Path("unused")))]
    (_, first), (_, last) = reports(events)
    for name in ("frechet_pca", "kid_pca", "mmd_pca", "sliced_wasserstein_pca"):
        assert last["measures"][name]["value"] < first["measures"][name]["value"]


def test_the_features_are_those_of_the_training_data() -> None:
    rows = draws(2000, 6, 1).float() * torch.tensor([5.0, 4.0, 3.0, 1.0, 0.5, 0.1])
    features = PixelPca(rows, 3)
    assert (features.name, features.size) == ("pixel-pca-3", 3)
    found = features.of(rows)
    assert found.shape == (2000, 3)
    ratio = found.var(0).sum() / rows.double().var(0).sum()
    assert ratio.item() == pytest.approx(50 / 51.26, abs=0.01)
    assert PixelPca(rows, 99).size == 6


def test_too_few_held_out_data_are_refused() -> None:
    spec = spec_of().model_copy(
        update={"dataset": spec_of().dataset.model_copy(update={"held_out_fraction": 0.01})}
    )
    info = load(spec.dataset, Path("unused")).info
    with pytest.raises(SpecMismatch, match="hold out more") as caught:
        resolve(spec, info)
    assert caught.value.pointer == "/trainer/quality"
