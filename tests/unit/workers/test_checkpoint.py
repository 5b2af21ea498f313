import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from workers.build import resolve
from workers.checkpoint import (
    Manifest,
    decode_tensors,
    encode_manifest,
    encode_train_state,
    encode_weights,
    parse_description,
    parse_manifest,
)
from workers.data import Dataset, load
from workers.errors import CheckpointError, StoreError
from workers.events import Checkpoint
from workers.generate import GENERATOR_VERSION, Generator
from workers.spec import TrainSpec
from workers.train import train


@dataclass(frozen=True)
class Trained:
    """A small run's last checkpoint and its three files."""

    spec: TrainSpec
    data: Dataset
    checkpoint: Checkpoint
    folder: Path
    manifest: bytes

    @property
    def weights_path(self) -> Path:
        return self.folder / "weights.safetensors"

    @property
    def train_state_path(self) -> Path:
        return self.folder / "train_state.safetensors"

    @property
    def weights(self) -> bytes:
        return self.weights_path.read_bytes()

    def generator(self) -> Generator:
        return Generator.from_parts(parse_manifest(self.manifest), self.weights_path)


def trained(folder: Path, dataset: dict[str, Any], **trainer: Any) -> Trained:
    network = {"kind": "mlp", "hidden": [32, 16], "latent_dim": 5}
    spec = TrainSpec.model_validate(
        {
            "dataset": dataset,
            "trainer": {"kind": "delta_vae", "network": network, "epochs": 1, **trainer},
        }
    )
    data = load(spec.dataset, Path("unused"))
    spec = resolve(spec, data.info)
    torch.set_num_threads(1)
    checkpoint = [e for e in train(spec, data) if isinstance(e, Checkpoint)][-1]
    weights = encode_weights(checkpoint, spec, data.info, folder / "weights.safetensors")
    train_state = encode_train_state(checkpoint, folder / "train_state.safetensors")
    manifest = encode_manifest(checkpoint, spec, data.info, weights, train_state)
    return Trained(spec, data, checkpoint, folder, manifest)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("digits"), {"name": "digits"})


@pytest.fixture(scope="module")
def convolutions(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    network = {"kind": "conv", "channels": [4, 6], "latent_dim": 5}
    folder = tmp_path_factory.mktemp("convolutions")
    return trained(folder, {"name": "digits"}, network=network)


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    schedule = {"kind": "linear", "initial_scale": 2.0, "until_epoch": 2}
    spread = {"kind": "gaussian", "scale": 0.1, "schedule": schedule}
    folder = tmp_path_factory.mktemp("ring")
    return trained(folder, {"kind": "ring", "samples": 200}, spread=spread)


def test_the_weights_file_loads_with_safetensors_alone(digits: Trained) -> None:
    path = digits.weights_path
    tensors = safetensors.torch.load_file(path)
    assert tensors.keys() == digits.checkpoint.weights.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, digits.checkpoint.weights[name])
    with safetensors.safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["spreadtrain"])["dataset"]["shape"] == [8, 8]


def test_equal_weights_give_equal_bytes(digits: Trained, tmp_path: Path) -> None:
    manifest = parse_manifest(digits.manifest)
    path = tmp_path / "again"
    for _ in range(20):
        facts = encode_weights(digits.checkpoint, digits.spec, digits.data.info, path)
        assert facts == manifest.weights
        assert path.read_bytes() == digits.weights
        assert encode_train_state(digits.checkpoint, path) == manifest.train_state


def test_a_file_that_cannot_be_written_is_a_store_error(digits: Trained) -> None:
    with pytest.raises(StoreError, match="make room"):
        encode_train_state(digits.checkpoint, digits.folder / "nowhere" / "state")


def test_the_train_state_survives_its_bytes(digits: Trained) -> None:
    tensors = decode_tensors(digits.train_state_path)
    assert tensors.keys() == digits.checkpoint.train_state.keys()
    for name, tensor in digits.checkpoint.train_state.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)


def test_the_manifest_says_what_the_checkpoint_is(digits: Trained) -> None:
    manifest = parse_manifest(digits.manifest)
    assert manifest.spec == digits.spec
    assert manifest.dataset.digest == digits.data.info.digest == digits.spec.dataset.digest
    assert manifest.step == digits.checkpoint.step
    assert manifest.metrics == digits.checkpoint.metrics
    assert manifest.weights.size_bytes == digits.weights_path.stat().st_size
    assert manifest.train_state.size_bytes == digits.train_state_path.stat().st_size
    assert manifest.versions.torch == torch.__version__
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


def test_a_manifest_with_fields_of_a_later_version_still_parses(digits: Trained) -> None:
    content = json.loads(digits.manifest) | {"later": 1}
    assert parse_manifest(json.dumps(content).encode()) == parse_manifest(digits.manifest)


def _cut_header(weights: bytes) -> bytes:
    return weights[: 8 + int.from_bytes(weights[:8], "little") // 2]


HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "short": lambda weights: weights[:5],
    "truncated header": _cut_header,
    "truncated tensors": lambda weights: weights[:-1],
    "longer": lambda weights: weights + b"\0",
    "pickle": lambda _: pickle.dumps({"encoder": np.zeros(3)}),
    "text": lambda _: b"these are not weights at all, but a sentence",
    "huge header": lambda _: (2**62).to_bytes(8, "little") + b"{}",
    "deep header": lambda _: (200_000).to_bytes(8, "little") + b"[" * 200_000,
    "header of another kind": lambda _: (4).to_bytes(8, "little") + b"null",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_weights_files_are_refused(name: str, digits: Trained, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(HOSTILE[name](digits.weights))
    with pytest.raises(CheckpointError):
        decode_tensors(path)
    with pytest.raises(CheckpointError):
        Generator.load(path)
    with pytest.raises(CheckpointError):
        Generator.from_parts(parse_manifest(digits.manifest), path)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff\xfe", b'{"format_version": 2}'])
def test_hostile_manifests_are_refused(content: bytes) -> None:
    with pytest.raises(CheckpointError):
        parse_manifest(content)


def described(digits: Trained, **changes: Any) -> bytes:
    """The weights with another description."""
    description = json.loads(parse_description(digits.weights_path).model_dump_json())
    for path, value in changes.items():
        *parents, last = path.split("__")
        part = description
        for parent in parents:
            part = part[parent]
        part[last] = value
    return safetensors.torch.save(
        dict(digits.checkpoint.weights), {"spreadtrain": json.dumps(description)}
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset__shape": [65_536, 65_536, 65_536]},
        {"dataset__shape": [8, 9]},
        {"dataset__shape": [0]},
        {"spec__trainer__network__hidden": [8192] * 8},
        {"spec__trainer__network__hidden": [16, 32]},
        {"spec__trainer__network": {"kind": "pickle"}},
        {"format_version": 2},
    ],
)
def test_a_description_that_does_not_fit_the_weights_is_refused(
    changes: dict[str, Any], digits: Trained, tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(described(digits))
    Generator.load(path)
    path.write_bytes(described(digits, **changes))
    with pytest.raises(CheckpointError):
        Generator.load(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset__shape": [64]},
        {"dataset__shape": [8, 12]},
        {"dataset__shape": [2, 2]},
        {"dataset__shape": [65_536, 65_536, 65_536]},
        {"spec__trainer__network__channels": [4, 6, 8]},
        {"spec__trainer__network__channels": [2048] * 8},
        {"spec__trainer__network__batch_norm": False},
        {"spec__trainer__network__kernel_size": 3},
    ],
)
def test_a_description_that_does_not_fit_the_convolutions_is_refused(
    changes: dict[str, Any], convolutions: Trained, tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(described(convolutions))
    Generator.load(path)
    path.write_bytes(described(convolutions, **changes))
    with pytest.raises(CheckpointError):
        Generator.load(path)


def test_weights_of_another_type_or_not_finite_are_refused(digits: Trained, tmp_path: Path) -> None:
    metadata = {"spreadtrain": parse_description(digits.weights_path).model_dump_json()}
    path = tmp_path / "weights.safetensors"
    doubles = {name: tensor.double() for name, tensor in digits.checkpoint.weights.items()}
    nans = {name: tensor * float("nan") for name, tensor in digits.checkpoint.weights.items()}
    for tensors in (doubles, nans):
        path.write_bytes(safetensors.torch.save(tensors, metadata))
        with pytest.raises(CheckpointError):
            Generator.load(path)


def test_weights_that_the_manifest_does_not_name_are_refused(
    digits: Trained, tmp_path: Path
) -> None:
    other = bytearray(digits.weights)
    other[-1] ^= 1
    path = tmp_path / "weights"
    path.write_bytes(other)
    with pytest.raises(CheckpointError, match="manifest"):
        Generator.from_parts(parse_manifest(digits.manifest), path)


def test_a_missing_file_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        Generator.load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Generator.load(tmp_path)


# --- generators ---------------------------------------------------------------------------------


def test_fewer_samples_are_the_first_of_more(
    digits: Trained, ring: Trained, convolutions: Trained
) -> None:
    for run in (digits, ring, convolutions):
        for spread in (False, True):
            many = run.generator().sample(150, seed=3, spread=spread)
            for n in (1, 16, 63, 64, 65, 130):
                few = run.generator().sample(n, seed=3, spread=spread)
                assert few.tobytes() == many[:n].tobytes()
    assert digits.generator().sample(0).shape == (0, 8, 8)


def test_samples_depend_on_the_seed(digits: Trained) -> None:
    generator = digits.generator()
    assert np.array_equal(generator.sample(4, seed=1), generator.sample(4, seed=1))
    assert not np.array_equal(generator.sample(4, seed=1), generator.sample(4, seed=2))


def test_samples_have_the_shape_of_the_data(digits: Trained, ring: Trained) -> None:
    pictures = digits.generator().sample(10)
    assert pictures.shape == (10, 8, 8)
    assert pictures.dtype == np.float32
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    assert digits.generator().is_image
    assert ring.generator().sample(10).shape == (10, 2)
    assert not ring.generator().is_image
    assert ring.generator().version == GENERATOR_VERSION == 1


def test_a_sample_is_the_decoded_latent(digits: Trained) -> None:
    """Against the network written out in NumPy."""
    w = {name: t.double().numpy() for name, t in digits.checkpoint.weights.items()}
    h = digits.generator().latents(20, seed=4).astype(np.float64)
    assert h.shape == (20, 5)
    for layer in range(3):
        h = h @ w[f"decoder.layers.{layer}.weight"].T + w[f"decoder.layers.{layer}.bias"]
        h = np.where(h > 0, h, 0.01 * h) if layer < 2 else 1 / (1 + np.exp(-h))
    samples = digits.generator().sample(20, seed=4).reshape(20, -1)
    np.testing.assert_allclose(samples, h, atol=1e-6)


def test_latents_are_standard_normal(digits: Trained) -> None:
    z = digits.generator().latents(20_000, seed=5).astype(np.float64)
    n = z.size
    assert abs(z.mean()) < 6 / np.sqrt(n)
    assert abs((z**2).mean() - 1) < 6 * np.sqrt(2 / n)


@pytest.mark.parametrize(("run", "kurtosis"), [("digits", 6.0), ("ring", 3.0)])
def test_the_spread_is_added_at_the_checkpoint_s_scale(
    run: str, kurtosis: float, request: pytest.FixtureRequest
) -> None:
    chosen: Trained = request.getfixturevalue(run)
    # The ring's schedule is half way from 2.0 to 0.1 after one of two epochs.
    scale = {"digits": 0.5, "ring": 1.05}[run]
    generator = chosen.generator()
    noise = (generator.sample(20_000, spread=True) - generator.sample(20_000)).astype(np.float64)
    n = noise.size
    # Var k² = (kurtosis − 1) σ⁴; the fourth power's own spread is that of k⁴: E k⁸ − (E k⁴)².
    assert abs((noise**2).mean() / scale**2 - 1) < 6 * np.sqrt((kurtosis - 1) / n)
    eighth = {6.0: 2520.0, 3.0: 105.0}[kurtosis]
    error = 6 * np.sqrt((eighth - kurtosis**2) / n)
    assert abs((noise**4).mean() / scale**4 - kurtosis) < error


def test_a_fetched_weights_file_and_a_folder_give_the_same_samples(
    digits: Trained, tmp_path: Path
) -> None:
    (tmp_path / "weights.safetensors").write_bytes(digits.weights)
    (tmp_path / "manifest.json").write_bytes(digits.manifest)
    expected = digits.generator().sample(64).tobytes()
    assert Generator.load(tmp_path).sample(64).tobytes() == expected
    assert Generator.load(tmp_path / "weights.safetensors").sample(64).tobytes() == expected


_DRAW = """
import sys, torch
torch.set_num_threads(int(sys.argv[2]))
from workers.generate import Generator
sys.stdout.buffer.write(Generator.load(sys.argv[1]).sample(70, seed=9, spread=True).tobytes())
"""


@pytest.mark.parametrize("run", ["digits", "convolutions"])
@pytest.mark.parametrize("threads", [1, 2])
def test_every_process_draws_the_same_bytes(
    threads: int, run: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    chosen: Trained = request.getfixturevalue(run)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(chosen.weights)
    root = Path(__file__).parents[3]
    drawn = subprocess.run(
        [sys.executable, "-c", _DRAW, str(path), str(threads)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        check=True,
    )
    assert drawn.stdout == chosen.generator().sample(70, seed=9, spread=True).tobytes()
