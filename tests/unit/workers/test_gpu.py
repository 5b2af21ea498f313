"""Runs on a CUDA device: the same model, the same files, the same rules as on the CPU."""

import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.bench.measured.running import result_of
from tests.factories import ica_spec
from workers.artifacts import LocalStore, outcome_key
from workers.build import build_model
from workers.data import Dataset, load
from workers.decoding import decode, draw_latents
from workers.evaluate import Evaluation
from workers.events import Checkpoint, Metrics, Outcome
from workers.ica.align import align
from workers.ica.drawn import MixtureRecipe, draw
from workers.ica.fit import run as fit
from workers.ica.options import Options
from workers.ica.priors import Laplace, Priors
from workers.ica.shard import Shard
from workers.ica.sums import Model, expect
from workers.parallel import LOOPBACK, Meeting, join
from workers.quality import Assessment, Shelf
from workers.run import Run, StopFlag, execute
from workers.spec import IcaSpec, PaperSpec, Quality, TrainSpec
from workers.train import train

pytestmark = pytest.mark.gpu
MLP = {"kind": "mlp", "hidden": [64], "latent_dim": 8}
CONV = {"kind": "conv", "channels": [8, 16], "kernel_size": 3, "latent_dim": 8}
ROUNDS = {"every_epochs": 1, "noise_steps": 5, "encoder_steps": 5}
MEAN = {**ROUNDS, "mean_transform": {"kind": "mlp", "hidden": [32]}}
COVARIANCE = {**ROUNDS, "covariance": {"kind": "low_rank", "rank": 4}}


def spec_of(gpus: int, epochs: int = 4, **trainer: Any) -> TrainSpec:
    """Real digits; a checkpoint each second epoch."""
    return TrainSpec.model_validate(
        {
            "dataset": {"name": "digits"},
            "resources": {"gpus_per_worker": gpus},
            "trainer": {"kind": "delta_vae", "network": MLP, "epochs": epochs, **trainer},
            "checkpoint_every_epochs": 2,
        }
    )


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load(spec_of(0).dataset, tmp_path_factory.mktemp("cache"), None)


def checkpoints(
    spec: TrainSpec, data: Dataset, resume: Mapping[str, Tensor] | None = None
) -> list[Checkpoint]:
    return [e for e in train(spec, data, resume=resume) if isinstance(e, Checkpoint)]


def last_metrics(spec: TrainSpec, data: Dataset) -> Mapping[str, float]:
    return [e for e in train(spec, data) if isinstance(e, Metrics)][-1].values


@pytest.mark.parametrize(
    "trainer",
    [
        {},
        {"spread": {"kind": "laplace"}, "estimator": "antithetic", "noise_samples": 2},
        {"network": CONV},
        {"network": CONV, "precision": "bfloat16"},
        {"learned_spread": MEAN},
        {"learned_spread": COVARIANCE},
        {"spread": {"kind": "gaussian_mixture"}, "optimizer": {"kind": "adamw", "clip_norm": 1.0}},
    ],
    ids=["gaussian", "laplace", "conv", "bfloat16", "mean", "covariance", "mixture"],
)
def test_a_run_learns_as_well_as_on_the_cpu(digits: Dataset, trainer: dict[str, Any]) -> None:
    """Their draws differ, so that their losses are those of two seeds: within 10 % here."""
    here = last_metrics(spec_of(0, 10, **trainer), digits)
    there = last_metrics(spec_of(1, 10, **trainer), digits)
    assert set(here) == set(there)
    assert all(math.isfinite(value) for value in there.values())
    assert there["held_out_excess_nats"] == pytest.approx(here["held_out_excess_nats"], rel=0.1)


def test_a_checkpoint_is_on_the_cpu_and_its_samples_do_not_depend_on_the_device(
    digits: Dataset,
) -> None:
    for network in (MLP, CONV):
        spec = spec_of(1, network=network)
        last = checkpoints(spec, digits)[-1]
        assert {t.device.type for t in (*last.weights.values(), *last.train_state.values())} == {
            "cpu"
        }
        found = []
        for device in ("cpu", "cuda"):
            model = build_model(spec, digits.info, torch.device(device))
            model.load_state_dict(dict(last.weights))
            with model.evaluating():
                found.append(decode(model, draw_latents(64, 8, 0)))
        np.testing.assert_allclose(found[0], found[1], atol=2e-3)  # cuDNN convolves in TF32


def test_a_run_that_is_resumed_goes_on_as_one_that_was_not(digits: Dataset) -> None:
    spec = spec_of(1, 4)
    *_, first, last = checkpoints(spec, digits)
    resumed = checkpoints(spec, digits, resume=first.train_state)[-1]
    assert resumed.step == last.step
    for name, tensor in last.weights.items():
        torch.testing.assert_close(resumed.weights[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("begins", "goes_on"), [(0, 1), (1, 0)])
def test_a_run_goes_on_on_the_other_kind_of_device(
    digits: Dataset, begins: int, goes_on: int
) -> None:
    first = checkpoints(spec_of(begins), digits)[-2]
    last = checkpoints(spec_of(goes_on), digits, resume=first.train_state)[-1]
    assert last.step == 2 * first.step
    assert last.metrics["held_out_loss_nats"] < first.metrics["held_out_loss_nats"]


def test_the_same_samples_have_the_same_quality(digits: Dataset, tmp_path: Path) -> None:
    spec = spec_of(1)
    last = checkpoints(spec, digits)[-1]
    found = []
    for device in map(torch.device, ("cpu", "cuda")):
        model = build_model(spec, digits.info, device)
        model.load_state_dict(dict(last.weights))
        rows, held_out = digits.train.to(device), digits.held_out.to(device)
        quality = Quality.model_validate({"samples": 100, "features": ["efficientnet_lite0_40"]})
        fresh = partial(build_model, spec, digits.info, device)
        shelf = Shelf(cache_dir=tmp_path)
        assessed = Assessment(quality, 0, digits.info.shape, rows, held_out, shelf, fresh)
        seen = Evaluation(spec, rows, held_out).seen(1)
        found.append(result_of(assessed.run(model, seen)).metrics())
    here, there = found
    assert set(here) == set(there)
    for name in here:
        if name.startswith(("kid", "frechet", "mmd", "sliced")):
            assert there[name] == pytest.approx(here[name], rel=0.02, abs=2e-3)


@pytest.fixture
def small_gpu() -> Iterator[None]:
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.002)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def run_of(tmp_path: Path, spec: TrainSpec | IcaSpec | PaperSpec) -> tuple[LocalStore, Run]:
    store = LocalStore(tmp_path / "artifacts")
    run = Run(job_id="job-1", attempt=1, spec=spec, artifacts_uri=store.uri, cache_dir=tmp_path)
    return store, run


@pytest.mark.usefixtures("small_gpu")
def test_want_of_gpu_memory_is_a_named_reason(tmp_path: Path) -> None:
    wide = {"kind": "mlp", "hidden": [8192, 8192], "latent_dim": 8}
    store, run = run_of(tmp_path, spec_of(1, network=wide))
    assert execute(run, StopFlag()).reason == "out_of_memory"
    stored = Outcome.model_validate_json(store.get(outcome_key(run.prefix)))
    assert "ran out of memory" in stored.message


def test_ica_finds_the_same_mixing_matrix() -> None:
    drawn = draw(MixtureRecipe(10, 5, 20_000, 0.2, "signs", "laplace", 1))
    rows = torch.from_numpy(drawn.rows)
    here = fit(rows, Options(5, 0.04, Laplace()))
    there = fit(rows.cuda(), Options(5, 0.04, Laplace()))
    assert there.reason == here.reason
    # Its columns' order and signs are free, and the start's come from another eigensolver.
    mixing = align(there.mixing.cpu(), here.mixing)
    torch.testing.assert_close(mixing, here.mixing, rtol=1e-3, atol=1e-4)


def test_an_e_step_has_the_same_sums() -> None:
    drawn = draw(MixtureRecipe(10, 5, 200_000, 0.2, "signs", "laplace", 1))
    rows, mixing = torch.from_numpy(drawn.rows), torch.from_numpy(drawn.mixing)
    found = []
    for device in ("cpu", "cuda"):
        model = Model(mixing.to(device), 0.04, Priors((Laplace(),) * 5))
        found.append(expect(Shard.of(rows.to(device)), model, 1, torch.float64))
    here, there = found
    assert there.evidence == pytest.approx(here.evidence, rel=1e-9)
    for name in ("score", "ym", "mm", "vv"):
        ours, theirs = getattr(here, name), getattr(there, name)
        torch.testing.assert_close(theirs.cpu(), ours, rtol=1e-7, atol=1e-8)


def test_an_ica_job_runs(tmp_path: Path) -> None:
    asked = ica_spec().model_copy(update={"resources": spec_of(1).resources})
    _, run = run_of(tmp_path, asked)
    assert execute(run, StopFlag()).reason == "converged"


def test_a_figure_of_the_paper_that_trains_runs(tmp_path: Path) -> None:
    spec = PaperSpec.model_validate(
        {
            "trainer": {"kind": "paper", "figure": "5"},
            "dataset": {"name": "mnist-10k"},
            "resources": {"gpus_per_worker": 1},
        }
    )
    _, run = run_of(tmp_path, spec)
    assert execute(run, StopFlag()).reason == "completed"


def test_sums_over_nccl() -> None:
    """One worker, as NCCL takes no GPU twice: joining, summing, closing."""
    meeting = Meeting(LOOPBACK)
    with join(0, 1, meeting.address, host=LOOPBACK, backend="nccl") as peers:
        found = peers.all_reduce(torch.arange(5.0, device="cuda"))
    assert found.tolist() == [0, 1, 2, 3, 4]
