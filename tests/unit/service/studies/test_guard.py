"""The objective guard knows every metric that is emitted and every field that can be tuned."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.studies.guard import FIELDS, METRICS, group_of, valid_metrics, verdict
from tests.factories import ica_spec, tiny_spec
from workers.data import load
from workers.events import Metrics
from workers.kinds import AnySpec, train
from workers.spec import DeltaVae, Ica, IcaSpec, TrainSpec, Vae

LEARNED = {
    "covariance": {"kind": "low_rank", "rank": 1},
    "mean_transform": {"kind": "mlp", "hidden": [4]},
    "every_epochs": 1,
    "noise_steps": 1,
    "encoder_steps": 1,
}
QUALITY = {"samples": 100, "components": 1}
DATA = {"kind": "line", "samples": 100, "held_out_fraction": 0.5}
RECIPE: dict[str, Any] = {
    "noise_variance": 0.04,
    "prior": {"kind": "laplace"},
    "importance_samples": 10,
}


def pictures() -> TrainSpec:
    trainer = {
        "kind": "vae",
        "network": {"kind": "mlp", "hidden": [4], "latent_dim": 2},
        "epochs": 1,
        "quality": {**QUALITY, "features": ["efficientnet_lite0_40"]},
    }
    return TrainSpec.model_validate({"dataset": {"name": "digits"}, "trainer": trainer})


def vae() -> TrainSpec:
    trainer = {"kind": "vae", "epochs": 1, "batch_size": 25, "quality": QUALITY}
    return TrainSpec.model_validate({"dataset": DATA, "trainer": trainer})


def delta_vae(**trainer: Any) -> TrainSpec:
    spec = tiny_spec(**trainer).model_dump()
    return TrainSpec.model_validate({**spec, "dataset": DATA})


SPECS = [
    delta_vae(learned_spread=LEARNED, quality=QUALITY, warm_up_epochs=1),
    delta_vae(estimator="clean_target"),
    vae(),
    pictures(),
    ica_spec(),
    ica_spec(method="paper", max_iterations=2, **RECIPE),
    ica_spec(method="em", max_iterations=2),
    ica_spec(method="fastica"),
]


def emitted(spec: AnySpec, cache: Path) -> set[str]:
    found: set[str] = set()
    for event in train(spec, load(spec.dataset, cache)):
        if isinstance(event, Metrics):
            found |= set(event.values)
    return found


@pytest.mark.parametrize("spec", SPECS)
def test_every_metric_is_known(spec: AnySpec, tmp_path: Path) -> None:
    assert emitted(spec, tmp_path) <= set(METRICS)


def tunable() -> Iterator[str]:
    for model in (TrainSpec, IcaSpec):
        yield from (f"/{name}" for name in model.model_fields if name != "trainer")
    for trainer in (DeltaVae, Vae, Ica):
        yield from (f"/trainer/{name}" for name in trainer.model_fields)


def test_every_tunable_field_is_known_and_every_known_field_is_there() -> None:
    assert set(tunable()) == set(FIELDS)
    with pytest.raises(KeyError):
        group_of("/trainer/new")


@pytest.mark.parametrize("at", ["spread/scale", "spread/kind", "learned_spread", "observation"])
def test_no_number_that_holds_the_noise_ranks_noises(at: str) -> None:
    found = valid_metrics([f"/trainer/{at}"], METRICS)
    assert not [name for name in found if name.endswith("_nats") and "evidence" not in name]
    assert {"frechet_pca", "kid_pca", "mmd_pca", "amari", "recall_pca"} <= set(found)


def test_biases_are_told_apart_from_dependence() -> None:
    assert verdict("loss_nats", "/trainer/estimator") == "biased"
    assert verdict("held_out_elbo_nats", "/trainer/estimator") == "fine"
    assert verdict("kid_pca", "/trainer/network/hidden/0") == "biased"
    assert verdict("kid_pca", "/trainer/quality/samples") == "depends"
    values: set[Any] = {verdict(m, f) for m in METRICS for f in FIELDS}
    assert values == {"depends", "biased", "fine"}
