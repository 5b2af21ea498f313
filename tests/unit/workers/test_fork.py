import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.factories import tiny_spec
from workers.artifacts import LocalStore
from workers.build import resolve
from workers.checkpoint import DatasetFacts, Description
from workers.data import Dataset, describe, load
from workers.events import Checkpoint
from workers.fork import first_state, obstacles, without_record
from workers.spec import Start, TrainSpec
from workers.train import train


@pytest.fixture
def data(tmp_path: Path, artifacts: LocalStore) -> Dataset:
    return load(tiny_spec().dataset, tmp_path, artifacts)


def changed(spec: TrainSpec, **trainer: Any) -> TrainSpec:
    return TrainSpec.model_validate(
        {**spec.model_dump(), "trainer": {**spec.trainer.model_dump(), **trainer}}
    )


def checkpoints(
    spec: TrainSpec, data: Dataset, resume: Mapping[str, Tensor] | None = None
) -> list[Checkpoint]:
    return [event for event in train(spec, data, resume=resume) if isinstance(event, Checkpoint)]


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


SPEC = tiny_spec(epochs=4, optimizer={"ema_decay": 0.9, "schedule": {"kind": "cosine"}}).model_copy(
    update={"checkpoint_every_epochs": 1}
)


def test_a_fork_that_changes_nothing_goes_on_as_its_parent_did(data: Dataset) -> None:
    whole = checkpoints(SPEC, data)
    forked = checkpoints(SPEC, data, without_record(whole[1].train_state))
    assert [point.step for point in forked] == [12, 16]
    for own, parents in zip(forked, whole[2:], strict=True):
        assert same(own.weights, parents.weights)
        moments = [name for name in own.train_state if name.startswith(("optimizer", "average"))]
        assert moments
        assert all(torch.equal(own.train_state[n], parents.train_state[n]) for n in moments)
    assert forked[0].is_best  # of its own: the parent's best is not the fork's


def test_the_record_of_the_parent_is_not_the_forks(data: Dataset) -> None:
    state = without_record(checkpoints(SPEC, data)[1].train_state)
    assert state["best"].tolist() == [math.inf, math.inf]
    assert state["stale"] == 0
    assert state["step"] == 8


def test_a_lower_rate_goes_on_at_the_parents_step_with_its_moments(data: Dataset) -> None:
    whole = checkpoints(SPEC, data)
    still = changed(SPEC, optimizer={"learning_rate": 1e-30, "ema_decay": 0.9})
    [third, last] = checkpoints(still, data, without_record(whole[1].train_state))
    assert (third.step, last.step) == (12, 16)
    before, after = whole[1].train_state, last.train_state
    names = [name for name in before if name.startswith("weights.")]
    assert all(torch.equal(before[name], after[name]) for name in names)
    moments = [name for name in before if name.startswith("optimizer.exp_avg_sq")]
    assert not any(torch.equal(before[name], after[name]) for name in moments)


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_weights_alone_begin_at_step_0_with_what_the_checkpoint_shows(
    data: Dataset, ema_decay: float | None
) -> None:
    shown = checkpoints(SPEC, data)[1].weights
    still = changed(
        SPEC, batch_size=30, epochs=1, optimizer={"learning_rate": 1e-30, "ema_decay": ema_decay}
    )
    [only] = checkpoints(still, data, first_state(shown))
    assert only.step == 3
    for name, value in shown.items():
        torch.testing.assert_close(only.weights[name], value, rtol=1e-6, atol=0)


def pointers(start: Start, spec: TrainSpec, data: Dataset, epoch: float = 2.0) -> list[str]:
    parent = Description(
        spec=resolve(SPEC.model_copy(update={"trainer": plain().trainer}), data.info),
        dataset=DatasetFacts.of(data.info),
        step=8,
        epoch=epoch,
    )
    info = describe(spec.dataset, Path("/nowhere"))  # a toy needs no folder
    return [found.pointer for found in obstacles(start, parent, resolve(spec, info), info)]


def plain(**trainer: Any) -> TrainSpec:
    return tiny_spec(epochs=4, **trainer)


@pytest.mark.parametrize(
    "trainer",
    [
        {"optimizer": {"learning_rate": 1e-5, "kind": "adamw", "schedule": {"kind": "cosine"}}},
        {"spread": {"kind": "gaussian", "scale": 0.1}},
        {"estimator": "antithetic", "noise_samples": 2, "importance_samples": 3},
        {"early_stopping": {"patience": 2}, "best_metric": "elbo_nats"},
        {"warm_up_epochs": 1},
        {},
    ],
)
def test_rates_noise_and_schedules_may_change(data: Dataset, trainer: dict[str, Any]) -> None:
    for start in ("train_state", "weights"):
        assert pointers(start, plain(**trainer), data) == []


@pytest.mark.parametrize(
    ("trainer", "dataset", "pointer"),
    [
        ({"kind": "vae"}, {}, "/trainer/kind"),
        ({"batch_size": 30}, {}, "/trainer/batch_size"),
        ({"optimizer": {"ema_decay": 0.9}}, {}, "/trainer/optimizer/ema_decay"),
        ({"epochs": 2}, {}, "/trainer/epochs"),
        ({}, {"samples": 200}, "/dataset"),
        ({}, {"held_out_fraction": 0.05}, "/dataset/held_out_fraction"),
    ],
)
def test_what_gives_a_step_its_meaning_changes_with_weights_alone(
    data: Dataset, trainer: dict[str, Any], dataset: dict[str, Any], pointer: str
) -> None:
    content = plain().model_dump(
        exclude={"trainer": {"spread", "learned_spread", "estimator", "warm_up_epochs"}}
    )
    content["trainer"] |= trainer
    content["dataset"] |= dataset
    spec = TrainSpec.model_validate(content)
    assert pointers("train_state", spec, data) == [pointer]
    assert pointers("weights", spec, data) == []


@pytest.mark.parametrize("start", ["train_state", "weights"])
@pytest.mark.parametrize(("name", "value"), [("held_out_fraction", 0.2), ("split_seed", 1)])
def test_data_that_the_parent_was_trained_on_are_not_held_out(
    data: Dataset, start: Start, name: str, value: float
) -> None:
    content = plain().model_dump()
    content["dataset"][name] = value
    spec = TrainSpec.model_validate(content)
    assert pointers(start, spec, data) == [f"/dataset/{name}"]
    other = {**content, "dataset": {**content["dataset"], "seed": 1}}  # other draws, none seen
    assert pointers("weights", TrainSpec.model_validate(other), data) == []


@pytest.mark.parametrize("start", ["train_state", "weights"])
def test_another_network_or_another_shape_of_data_is_no_fork(data: Dataset, start: Start) -> None:
    wider = plain(network={"kind": "mlp", "hidden": [9], "latent_dim": 2})
    assert pointers(start, wider, data) == ["/trainer/network/hidden"]
    other = plain(network={"kind": "linear", "latent_dim": 2})
    assert pointers(start, other, data) == ["/trainer/network/kind", "/trainer/network/hidden"]
    content = plain().model_dump()
    content["dataset"] |= {"kind": "surface"}
    assert "/dataset" in pointers(start, TrainSpec.model_validate(content), data)
