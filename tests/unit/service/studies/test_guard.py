"""The objective guard knows every metric that is emitted and every field that can be tuned."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from service.studies.guard import (
    FIELDS,
    METRICS,
    Family,
    Group,
    family_of,
    groups_of,
    metrics_of,
    valid_metrics,
    verdict,
    verdict_on,
)
from tests.factories import ica_spec, tiny_spec
from workers.data import load
from workers.events import Metrics
from workers.kinds import AnySpec, train
from workers.spec import DeltaVae, Ica, IcaSpec, RefitEncoder, RefitSpec, TrainSpec, Vae

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


SCALES = {"scales": [0.2, 0.4, 0.8], "steps": 1, "rows": 20, "importance_samples": 10}
SPECS = [
    delta_vae(
        learned_spread=LEARNED, quality={**QUALITY, "reference_scales": SCALES}, warm_up_epochs=1
    ),
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
def test_every_metric_is_known_and_what_can_rank_is_told_before_the_run(
    spec: AnySpec, tmp_path: Path
) -> None:
    found = emitted(spec, tmp_path)
    ranking = {name for name in found if family_of(name) is not Family.DIAGNOSTIC}
    assert ranking == set(metrics_of(spec))


def test_what_a_refit_of_encoders_says_is_known() -> None:
    spec = RefitSpec.model_validate(
        {"dataset": DATA, "trainer": {"kind": "refit_encoder", **SCALES, "noise": "laplace"}}
    )
    assert "log_likelihood_laplace_0.4_k1" in metrics_of(spec)
    assert {family_of(name) for name in metrics_of(spec)} == {Family.REFERENCE}
    assert family_of("log_likelihood_gaussian_1e-05_standard_error") is Family.DIAGNOSTIC
    assert family_of("elbo_nats") is Family.TRAINING
    with pytest.raises(KeyError):
        family_of("elbo_uniform_0.4")


def tunable() -> Iterator[str]:
    for spec in (TrainSpec, IcaSpec, RefitSpec):
        yield from (f"/{name}" for name in spec.model_fields if name != "trainer")
    for trainer in (DeltaVae, Vae, Ica, RefitEncoder):
        yield from (f"/trainer/{name}" for name in trainer.model_fields)


def within(model: type[BaseModel], at: str = "") -> Iterator[tuple[str, str]]:
    """Every field at any depth, each with the pointer of the object that it is in."""
    for name, field in model.model_fields.items():
        yield f"{at}/{name}", at
        for part in models_in(field.annotation):
            yield from within(part, f"{at}/{name}")


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        if get_origin(annotation) is not tuple:  # items of a list have indices, and its group
            yield from models_in(part)


# Fields that change something else than the object that they are in.
OTHERWISE = {
    "/trainer/network/output": Group.RUNNING,
    "/trainer/network/batch_norm": Group.RUNNING,
    "/trainer/quality/at": Group.RUNNING,
    "/trainer/quality/reference_scales": Group.REFERENCE,
}


def test_every_field_within_a_field_has_the_right_group() -> None:
    fields = {
        at: parent for model in (TrainSpec, IcaSpec, RefitSpec) for at, parent in within(model)
    }
    assert {"/trainer/spread/schedule/until_epoch", "/trainer/optimizer/schedule/factor"} <= set(
        fields
    )
    nested = {at: parent for at, parent in fields.items() if parent not in ("", "/trainer")}
    for at, parent in nested.items():
        if at in OTHERWISE:
            assert groups_of(at) == {OTHERWISE[at]}
        else:
            assert groups_of(at) < groups_of(parent) or groups_of(at) == groups_of(parent)
            assert len(groups_of(at)) == 1
    # A new field in an object of several groups needs a thought, and then a line here.
    assert {name for name in nested if nested[name] == "/trainer/quality"} == {
        f"/trainer/quality/{name}"
        for name in ("at", "samples", "components", "features", "reference_scales")
    }


def test_every_tunable_field_is_known_and_every_known_field_is_there() -> None:
    assert set(tunable()) == {at for at in FIELDS if at not in OTHERWISE}
    for unknown in ("/trainer/new", "/new", "/train"):
        with pytest.raises(KeyError):
            groups_of(unknown)


def test_a_place_changes_all_that_it_holds() -> None:
    assert groups_of("/trainer") == {*Group} - {Group.DATA}
    assert groups_of("/trainer/network/output") == {Group.RUNNING}
    assert groups_of("/trainer/network/hidden/0") == {Group.SIZE}
    assert groups_of("/trainer/network") == {Group.SIZE, Group.RUNNING}
    assert groups_of("/trainer/quality/reference_scales/steps") == {Group.REFERENCE}
    assert verdict("kid_pca", "/trainer/quality/reference_scales") == "fine"
    assert verdict("kid_pca", "/trainer/quality") == "depends"
    assert verdict("held_out_elbo_nats", "/trainer") == "depends"


@pytest.mark.parametrize("at", FIELDS)
def test_a_likelihood_at_a_reference_scale_never_decides_alone(at: str) -> None:
    for metric in ("log_likelihood_gaussian_0.4", "elbo_laplace_0.2"):
        assert verdict(metric, at) in ("beside", "depends")
        assert valid_metrics([at], [metric]) == ()
    assert verdict_on("log_likelihood_gaussian_0.4", ()) == "beside"


def test_every_metric_has_a_verdict_on_every_field() -> None:
    metrics = [*METRICS, "log_likelihood_gaussian_0.4", "elbo_gaussian_0.4"]
    values: set[Any] = {verdict(m, f) for m in metrics for f in FIELDS}
    assert values == {"depends", "beside", "biased", "fine"}


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
