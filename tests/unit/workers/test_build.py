import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from workers.build import (
    build_model,
    checkpoint_epochs,
    empty_model,
    grid_epochs,
    resolve,
)
from workers.costs import estimate
from workers.data import DatasetInfo, describe, load
from workers.errors import SpecMismatch
from workers.events import Finished
from workers.kinds import resolve as resolve_any
from workers.networks import value_count
from workers.spec import JOB_SPEC, NamedDataset, ToyDataset, TrainSpec
from workers.train import train

SPECS = sorted((Path(__file__).parent / "specs").glob("v1-*.json"))


def info(ref: NamedDataset | ToyDataset | None = None) -> DatasetInfo:
    return describe(ref or NamedDataset(name="mnist-10k"), Path("unused"))


def spec_of(**trainer: Any) -> TrainSpec:
    return TrainSpec.model_validate(
        {"dataset": {"name": "mnist-10k"}, "trainer": {"kind": "delta_vae", **trainer}}
    )


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_stored_spec_still_parses_and_keeps_its_content(path: Path) -> None:
    spec = JOB_SPEC.validate_json(path.read_text())
    assert JOB_SPEC.validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("v1-vae", "25be8d69a498fe3a18bb4f99de380b41631562c6e3b42b178dc2f227ad971789"),
        ("v1-learned", "28b8ed8b7fd3c6c7b753b4ee92b24f2bd5f44113a08decaaa912548389119625"),
        ("v1-ica", "bfbdb59f0d2694272574ca8c27a5970dde4de932f36b26764f562a49a41167d9"),
        ("v1-refit", "548f54e48e37193eb224373019a3c7ffb701c03283f7dd158bd1be68c3c9683f"),
    ],
)
def test_a_stored_spec_stays_the_same_computation(name: str, digest: str) -> None:
    spec = JOB_SPEC.validate_json((SPECS[0].parent / f"{name}.json").read_text())
    assert spec.digest() == f"sha256:{digest}"


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_gpus_that_no_worker_would_use_are_refused(path: Path) -> None:
    """A stored spec that asks for them still parses."""
    content = json.loads(path.read_text())
    content["resources"] = {"gpus_per_worker": 2}
    spec = JOB_SPEC.validate_python(content)
    with pytest.raises(SpecMismatch, match="several workers with 1 each") as refused:
        resolve_any(spec, info())
    assert refused.value.pointer == "/resources/gpus_per_worker"


def test_there_are_stored_specs() -> None:
    assert len(SPECS) >= 3


@pytest.mark.parametrize(
    "change",
    [
        {"spread": {"kind": "laplace", "scale": 0}},
        {"spread": {"kind": "laplace", "scale": -0.5}},
        {"spread": {"kind": "gaussian", "scale": float("nan")}},
        {"spread": {"kind": "gaussian", "scale": float("inf")}},
        {"spread": {"kind": "uniform", "scale": 0.5}},
        {"spread": {"kind": "gaussian", "scale": "0.5"}},
        {"network": {"kind": "mlp", "hidden": []}},
        {"network": {"kind": "mlp", "hidden": [0]}},
        {"network": {"kind": "mlp", "hidden": [8193]}},
        {"network": {"kind": "conv", "channels": []}},
        {"network": {"kind": "conv", "channels": [2049]}},
        {"network": {"kind": "conv", "kernel_size": 4}},
        {"precision": "float16"},
        {"batch_size": 0},
        {"epochs": 1.5},
        {"noise_samples": 65},
        {"optimizer": {"learning_rate": float("nan")}},
        {"optimizer": {"betas": [0.9, 1.0]}},
        {"unknown": 1},
    ],
)
def test_values_out_of_bounds_and_nan_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        spec_of(**change)


def test_resolving_pins_the_data_and_chooses_the_output() -> None:
    spec = resolve(spec_of(), info())
    assert spec.dataset.digest == info().digest
    assert spec.trainer.network.output == "sigmoid"
    assert resolve(spec, info()) == spec
    toy = ToyDataset(kind="ring")
    vectors = spec_of().model_copy(update={"dataset": toy})
    assert resolve(vectors, info(toy)).trainer.network.output == "identity"


def pointer_of(spec: TrainSpec, about: DatasetInfo) -> str:
    with pytest.raises(SpecMismatch) as caught:
        resolve(spec, about)
    return caught.value.pointer


def test_what_does_not_fit_the_data_is_refused_with_a_pointer() -> None:
    assert pointer_of(spec_of(batch_size=9001), info()) == "/trainer/batch_size"
    resolve(spec_of(batch_size=9000), info())
    ring = info(ToyDataset(kind="ring"))
    sigmoid = spec_of(network={"kind": "mlp", "output": "sigmoid"})
    assert pointer_of(sigmoid, ring) == "/trainer/network/output"
    uneven = spec_of(spread={"kind": "gaussian", "pixel_scales": [1.0, 2.0, 3.0]})
    assert pointer_of(uneven, ring) == "/trainer/spread/pixel_scales"
    wide = spec_of(network={"kind": "linear", "latent_dim": 3})
    assert pointer_of(wide, ring) == "/trainer/network/latent_dim"


CONV = {"kind": "conv", "channels": [3, 5], "latent_dim": 7}


@pytest.mark.parametrize(
    "network",
    [
        {"kind": "mlp", "hidden": [7, 5]},
        {"kind": "linear"},
        CONV,
        {**CONV, "channels": [4], "kernel_size": 3, "batch_norm": False},
    ],
)
@pytest.mark.parametrize("shape", [(28, 28), (12, 20, 3)])
def test_the_parameter_count_is_that_of_the_model(
    network: dict[str, Any], shape: tuple[int, ...]
) -> None:
    about = replace(info(), shape=shape)
    spec = resolve(spec_of(network=network), about)
    model = build_model(spec, about, torch.device("cpu"))
    assert estimate(spec, about).parameters == sum(p.numel() for p in model.parameters())
    values = sum(tensor.numel() for tensor in model.state_dict().values())
    assert value_count(spec.trainer.network, shape) == values


def test_pictures_that_cannot_be_halved_often_enough_are_refused_with_what_fits() -> None:
    network = {"kind": "conv", "channels": [4] * 3}
    for shape, pointer, advice in (
        ((28, 28), "channels", "28×28 can be halved 2 times; choose at most 2"),
        ((12, 20, 3), "channels", "12×20 can be halved 2 times; choose at most 2"),
        ((27, 28), "kind", "27×28 cannot be halved; choose mlp"),
        ((784,), "kind", "vectors; choose mlp"),
    ):
        with pytest.raises(SpecMismatch, match=advice) as caught:
            resolve(spec_of(network=network), replace(info(), shape=shape))
        assert caught.value.pointer == f"/trainer/network/{pointer}"
    resolve(spec_of(network=network), replace(info(), shape=(64, 64, 3)))


def test_the_network_of_the_paper_for_celeba_is_a_spec() -> None:
    spec = TrainSpec.model_validate_json((SPECS[0].parent / "v1-celeba.json").read_text())
    about = replace(info(), shape=(64, 64, 3), count=202_599)
    with torch.device("meta"):
        shapes = {
            name: tuple(tensor.shape)
            for name, tensor in empty_model(
                spec, about.shape, is_image=True, generator=torch.Generator()
            )
            .state_dict()
            .items()
            if name.endswith(("convolution.weight", "head.weight", "last.weight"))
        }
    assert shapes == {
        "encoder.layers.0.convolution.weight": (128, 3, 5, 5),
        "encoder.layers.1.convolution.weight": (256, 128, 5, 5),
        "encoder.layers.2.convolution.weight": (512, 256, 5, 5),
        "encoder.layers.3.convolution.weight": (1024, 512, 5, 5),
        "encoder.head.weight": (200, 4 * 4 * 1024),
        "decoder.head.weight": (4 * 4 * 1024, 100),
        "decoder.layers.0.convolution.weight": (1024, 512, 5, 5),
        "decoder.layers.1.convolution.weight": (512, 256, 5, 5),
        "decoder.layers.2.convolution.weight": (256, 128, 5, 5),
        "decoder.layers.3.convolution.weight": (128, 64, 5, 5),
        "decoder.last.weight": (3, 64, 5, 5),
    }
    assert estimate(resolve(spec, about), about).steps == 200 * 1827  # 20,000 held out


def test_the_estimate_counts_steps_and_grows_with_what_is_kept() -> None:
    few = resolve(spec_of(epochs=60), info())
    assert estimate(few, info()).steps == 60 * 90
    often = few.model_copy(update={"checkpoint_every_epochs": 1, "keep_checkpoints": 50})
    assert estimate(often, info()).storage_bytes > 2 * estimate(few, info()).storage_bytes
    averaged = resolve(spec_of(optimizer={"ema_decay": 0.9}), info())
    assert (
        estimate(averaged, info()).worker_memory_bytes > estimate(few, info()).worker_memory_bytes
    )


def test_an_enormous_network_is_estimated_without_being_built() -> None:
    huge = spec_of(network={"kind": "mlp", "hidden": [8192] * 8, "latent_dim": 4096})
    assert estimate(resolve(huge, info()), info()).worker_memory_bytes > 10 * 2**30


def test_the_estimated_steps_are_those_that_training_takes(tmp_path: Path) -> None:
    ref = ToyDataset(kind="line", samples=47)
    spec = spec_of(network={"kind": "linear", "latent_dim": 1}, epochs=2, batch_size=10).model_copy(
        update={"dataset": ref}
    )
    data = load(ref, tmp_path)
    finished = [*train(spec, data)][-1]
    assert isinstance(finished, Finished)
    assert finished.step == estimate(spec, data.info).steps == 10


def test_checkpoints_and_grids_always_include_the_last_epoch() -> None:
    spec = spec_of(epochs=7, grid_every_epochs=3).model_copy(
        update={"checkpoint_every_epochs": 4, "checkpoint_at_epochs": (2, 9)}
    )
    assert checkpoint_epochs(spec) == {2, 4, 7}
    assert grid_epochs(spec) == {1, 3, 6, 7}


def test_the_initial_weights_follow_from_the_seed_alone() -> None:
    spec = resolve(spec_of(network={"kind": "mlp", "hidden": [8]}), info())
    torch.manual_seed(1)
    first = build_model(spec, info(), torch.device("cpu")).state_dict()
    torch.manual_seed(2)
    second = build_model(spec, info(), torch.device("cpu")).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = build_model(
        spec.model_copy(update={"seed": 1}), info(), torch.device("cpu")
    ).state_dict()
    assert not any(torch.equal(first[name], other[name]) for name in first)
