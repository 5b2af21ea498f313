import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from workers import attended, reporting
from workers.checkpoint import decode_tensors, encode_train_state
from workers.costs import estimate
from workers.data import Dataset, DatasetInfo, load
from workers.errors import CheckpointError, Diverged, SpecMismatch
from workers.events import Checkpoint, Event, Finished, Grid, Metrics, Notice, Tick
from workers.fork import without_record
from workers.metrics import EpochMeans
from workers.spec import TrainSpec
from workers.train import train

DIGITS = {"name": "digits"}
RING = {"kind": "ring", "samples": 400}
TINY = {"kind": "mlp", "hidden": [16], "latent_dim": 3}


def spec_of(dataset: Mapping[str, Any] = DIGITS, **changes: Any) -> TrainSpec:
    run = {
        name: changes.pop(name)
        for name in ("seed", "checkpoint_every_epochs", "checkpoint_at_epochs", "resources")
        if name in changes
    }
    trainer = {"kind": "delta_vae", "network": TINY, "epochs": 4, "batch_size": 128, **changes}
    return TrainSpec.model_validate({"dataset": dataset, "trainer": trainer, **run})


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load(spec_of().dataset, Path("unused"))


@pytest.fixture(scope="module")
def ring() -> Dataset:
    return load(spec_of(RING).dataset, Path("unused"))


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks for a stop while an epoch is evaluated, however long that takes."""
    monkeypatch.setattr(reporting, "TICK_S", math.inf)


@pytest.fixture
def attentive(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop is asked for after each piece of an evaluation, with a Tick, and not between."""
    monkeypatch.setattr(reporting, "TICK_S", -1.0)
    monkeypatch.setattr(attended, "TICK_S", math.inf)


def stop_after(steps: int) -> Callable[[], bool]:
    """True from the call before step ``steps`` + 1 of this attempt on."""
    asked = iter(range(10**9))
    return lambda: next(asked) >= steps


def last_checkpoint(events: list[Event]) -> Checkpoint:
    return [event for event in events if isinstance(event, Checkpoint)][-1]


def finished(events: list[Event]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


def metrics(events: list[Event]) -> list[Metrics]:
    """The metrics at the end of each epoch; a slow round that learns the spread speaks before."""
    whole = [e for e in events if isinstance(e, Metrics) and e.epoch == int(e.epoch)]
    return list({event.epoch: event for event in whole}.values())


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "everything": {
        "spread": {
            "kind": "gaussian",
            "scale": 0.3,
            "schedule": {"kind": "cosine", "initial_scale": 0.9, "until_epoch": 3},
        },
        "estimator": "antithetic",
        "warm_up_epochs": 1,
        "noise_samples": 2,
        "importance_samples": 2,
        "optimizer": {
            "kind": "adamw",
            "weight_decay": 0.01,
            "ema_decay": 0.9,
            "schedule": {"kind": "cosine", "final_fraction": 0.1},
        },
        "early_stopping": {"patience": 50},
    },
    "vae": {"kind": "vae", "observation": {"kind": "laplace", "scale": 0.4}, "noise_samples": 2},
    "tails": {
        "spread": {"kind": "student_t", "degrees_of_freedom": 3, "pixel_scales": [1.0, 2.0] * 32}
    },
    "learned": {
        "epochs": 3,
        "spread": {"kind": "gaussian", "scale": 0.4},
        "learned_spread": {
            **{"every_epochs": 1, "noise_steps": 9, "encoder_steps": 6, "learning_rate": 0.01},
            "covariance": {"kind": "low_rank", "rank": 3, "components": 8},
            "mean_transform": {"kind": "conv", "blocks": 1, "channels": 2, "normalise_gain": True},
        },
        "network": {"kind": "conv", "channels": [3, 4], "latent_dim": 3},
        "optimizer": {"ema_decay": 0.9},
    },
    "information": {
        "warm_up_epochs": 1,
        "precision": "bfloat16",
        "noise_samples": 2,
        "learned_spread": {
            **{"every_epochs": 1, "noise_steps": 3, "encoder_steps": 8, "ascend": "kl"},
            "covariance": {"kind": "low_rank", "rank": 2},
            "mean_transform": {"kind": "mlp", "hidden": [5], "blocks": 2},
        },
    },
    "rival": {
        "learned_spread": {
            **{"every_epochs": 2, "encoder_steps": 6},
            "covariance": {"kind": "equal_entropy", "rank": 3},
        },
    },
    "staircase": {
        "quality": {"at": "checkpoints", "samples": 100, "components": 4},
        "estimator": "clean_target",
        "optimizer": {"clip_norm": None, "schedule": {"kind": "staircase", "every_epochs": 1}},
    },
    "convolutions": {
        "network": {"kind": "conv", "channels": [3, 4], "latent_dim": 3},
        "optimizer": {"ema_decay": 0.9},
    },
    "bfloat16": {
        "network": {"kind": "conv", "channels": [3], "kernel_size": 3, "batch_norm": False},
        "precision": "bfloat16",
    },
}


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("stop_at", [1, 20, 26, 31])
def test_stopping_anywhere_and_resuming_gives_the_same_bits(
    variant: str, stop_at: int, digits: Dataset, tmp_path: Path
) -> None:
    """2n epochs = n + stop + resume + n; 13 steps make an epoch, so 26 is on a boundary."""
    spec = spec_of(**VARIANTS[variant])
    whole = [*train(spec, digits)]
    part = [*train(spec, digits, should_stop=stop_after(stop_at))]
    assert finished(part).reason == "interrupted"
    assert finished(part).step == stop_at
    # Through a file, as a restart would have it.
    encode_train_state(last_checkpoint(part), tmp_path / "train_state")
    state = decode_tensors(tmp_path / "train_state")
    rest = [*train(spec, digits, resume=state)]
    assert finished(rest).step == finished(whole).step == estimate(spec, digits.info).steps
    one, other = last_checkpoint(whole), last_checkpoint(rest)
    assert same(one.weights, other.weights)
    assert same(one.train_state, other.train_state)
    clock = {"data_per_s"}
    for a, b in zip(reversed(metrics(whole)), reversed(metrics(rest)), strict=False):
        gradient = {"gradient_norm"}  # measured every 20th step, perhaps before the stop
        assert {k: v for k, v in a.values.items() if k not in clock | gradient} == {
            k: v for k, v in b.values.items() if k not in clock | gradient
        }


@pytest.mark.usefixtures("unhurried")
def test_a_run_can_be_stopped_after_every_step(digits: Dataset) -> None:
    spec = spec_of(epochs=1, optimizer={"ema_decay": 0.5})
    state = None
    for step in range(1, 14):
        events = [*train(spec, digits, resume=state, should_stop=stop_after(1))]
        assert finished(events).step == step
        state = last_checkpoint(events).train_state
    assert finished(events).reason == "completed"
    whole = last_checkpoint([*train(spec, digits)])
    assert same(last_checkpoint(events).weights, whole.weights)


def test_a_stop_before_the_first_step_can_be_resumed(digits: Dataset) -> None:
    spec = spec_of(epochs=1)
    events = [*train(spec, digits, should_stop=lambda: True)]
    assert [type(event) for event in events] == [Checkpoint, Finished]
    rest = [*train(spec, digits, resume=last_checkpoint(events).train_state)]
    whole = [*train(spec, digits)]
    assert same(last_checkpoint(rest).weights, last_checkpoint(whole).weights)


@pytest.mark.usefixtures("unhurried")
def test_a_stop_on_a_checkpointed_step_writes_it_once(digits: Dataset) -> None:
    spec = spec_of(checkpoint_every_epochs=1)
    events = [*train(spec, digits, should_stop=stop_after(26))]
    steps = [event.step for event in events if isinstance(event, Checkpoint)]
    assert steps == [13, 26]


# Stops while the first epoch, which has a checkpoint, or the second one is evaluated.
EVALUATED: dict[str, tuple[dict[str, Any], int]] = {
    "everything": (VARIANTS["everything"], 1),
    "no checkpoint is due": (VARIANTS["plain"], 2),
    "quality": (
        {
            "early_stopping": {"patience": 50, "min_delta": 1e6},
            "quality": {"at": "checkpoints", "samples": 100, "components": 4},
        },
        1,
    ),
    "a round comes first": (
        {
            "epochs": 2,
            "learned_spread": {
                **{"every_epochs": 1, "noise_steps": 2, "encoder_steps": 2},
                "covariance": {"kind": "low_rank", "rank": 2},
            },
        },
        1,
    ),
}


def evaluating(events: list[Event], step: int) -> list[Event]:
    """The Ticks of the evaluation after a step."""
    return [event for event in events if isinstance(event, Tick) and event.step == step]


@pytest.mark.usefixtures("attentive")
@pytest.mark.parametrize("where", ["at the first piece", "at the last piece"])
@pytest.mark.parametrize("name", EVALUATED)
def test_a_stop_during_an_evaluation_is_heard_and_its_report_is_made_when_the_run_goes_on(
    name: str, where: str, digits: Dataset, tmp_path: Path
) -> None:
    changes, epoch = EVALUATED[name]
    spec = spec_of(**changes)
    whole = [*train(spec, digits)]
    step = next(event.step for event in metrics(whole) if event.epoch == epoch)
    pieces = len(evaluating(whole, step))
    assert pieces > 3
    piece = 1 if where == "at the first piece" else pieces - 1
    part: list[Event] = []
    for event in train(spec, digits, should_stop=lambda: len(evaluating(part, step)) >= piece):
        part.append(event)
    assert len(evaluating(part, step)) == piece
    assert (finished(part).reason, finished(part).epoch) == ("interrupted", epoch)
    assert not [e for e in part if isinstance(e, Metrics | Grid) and e.step == step]
    stopped = last_checkpoint(part)
    assert (stopped.step, stopped.is_best, stopped.replaces) == (step, False, False)
    encode_train_state(stopped, tmp_path / "train_state")
    rest = [*train(spec, digits, resume=decode_tensors(tmp_path / "train_state"))]
    clock = {"data_per_s", "gradient_norm"}
    after = [e for e in metrics(whole) if e.epoch >= epoch]
    assert [e.step for e in metrics(rest)] == [e.step for e in after]
    for one, other in zip(after, metrics(rest), strict=True):
        assert {k: v for k, v in one.values.items() if k not in clock} == {
            k: v for k, v in other.values.items() if k not in clock
        }
    checkpoints = [e for e in whole if isinstance(e, Checkpoint) and e.epoch >= epoch]
    again = [e for e in rest if isinstance(e, Checkpoint)]
    for ours, theirs in zip(checkpoints, again, strict=True):
        assert (ours.step, ours.is_best, ours.is_named) == (
            theirs.step,
            theirs.is_best,
            theirs.is_named,
        )
        assert same(ours.weights, theirs.weights)
        assert same(ours.train_state, theirs.train_state)
        assert theirs.replaces


@pytest.mark.usefixtures("attentive")
def test_a_report_that_was_made_up_for_is_not_made_again_after_another_stop(
    digits: Dataset,
) -> None:
    changes, epoch = EVALUATED["no checkpoint is due"]
    spec, part = spec_of(**changes), list[Event]()
    step = next(e.step for e in metrics([*train(spec, digits)]) if e.epoch == epoch)
    for event in train(spec, digits, should_stop=lambda: bool(evaluating(part, step))):
        part.append(event)
    again: list[Event] = []
    resumed = train(
        spec,
        digits,
        resume=last_checkpoint(part).train_state,
        should_stop=lambda: step in [e.step for e in metrics(again)],
    )
    for event in resumed:
        again.append(event)
    stopped = last_checkpoint(again)
    assert (stopped.step, stopped.replaces) == (step, True)  # the one that says a report is due
    rest = [*train(spec, digits, resume=stopped.train_state)]
    assert step not in [e.step for e in metrics(rest)]


@pytest.mark.usefixtures("attentive")
def test_a_stop_while_the_epoch_of_a_rung_is_evaluated_is_no_rung(digits: Dataset) -> None:
    spec, events = spec_of(), list[Event]()
    for event in train(
        spec, digits, should_stop=lambda: bool(evaluating(events, 13)), until_epoch=1
    ):
        events.append(event)
    assert finished(events).reason == "interrupted"
    state = last_checkpoint(events).train_state
    rest = [*train(spec, digits, resume=state, until_epoch=1)]
    assert [e.step for e in metrics(rest)] == [13]
    assert (finished(rest).reason, finished(rest).step) == ("at_rung", 13)
    # A fork has no part in an epoch that its parent did not report.
    forked = [*train(spec, digits, resume=without_record(state))]
    assert metrics(forked)[0].epoch == 2


@pytest.mark.parametrize("variant", ["plain", "everything"])
def test_a_fork_at_the_end_of_an_epoch_with_another_scale_is_one_run_in_steps(
    variant: str, digits: Dataset
) -> None:
    def spec(**spread: Any) -> TrainSpec:
        return spec_of(**{**VARIANTS[variant], "spread": {"kind": "gaussian", **spread}})

    first = [*train(spec(scale=0.9), digits, until_epoch=1)]
    assert (finished(first).reason, finished(first).epoch) == ("at_rung", 1)
    forked = without_record(last_checkpoint(first).train_state)
    steps = {"kind": "steps", "steps": [{"scale": 0.9, "until_epoch": 1}]}
    stepped = spec(scale=0.2, schedule=steps)
    one, other = [*train(stepped, digits)], [*train(stepped, digits, resume=forked)]
    assert same(last_checkpoint(one).weights, last_checkpoint(other).weights)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(digits: Dataset) -> None:
    torch.manual_seed(1)
    first = last_checkpoint([*train(spec_of(epochs=1), digits)])
    torch.manual_seed(2)
    second = last_checkpoint([*train(spec_of(epochs=1), digits)])
    other = last_checkpoint([*train(spec_of(epochs=1, seed=1), digits)])
    assert same(first.weights, second.weights)
    assert not same(first.weights, other.weights)


def test_evaluation_grids_and_checkpoints_do_not_change_the_weights(digits: Dataset) -> None:
    often = spec_of(checkpoint_every_epochs=1, grid_every_epochs=1, evaluate_every_epochs=1)
    seldom = spec_of(
        checkpoint_every_epochs=99,
        checkpoint_at_epochs=(),
        grid_every_epochs=99,
        evaluate_every_epochs=99,
    )
    one, other = [*train(often, digits)], [*train(seldom, digits)]
    assert sum("held_out_elbo_nats" in m.values for m in metrics(one)) == 4
    assert sum("held_out_elbo_nats" in m.values for m in metrics(other)) == 1
    assert same(last_checkpoint(one).weights, last_checkpoint(other).weights)


def test_evaluation_and_grids_leave_running_statistics_alone(digits: Dataset) -> None:
    network = {"kind": "conv", "channels": [4], "latent_dim": 3}
    often = spec_of(network=network, epochs=3, grid_every_epochs=1, evaluate_every_epochs=1)
    seldom = spec_of(network=network, epochs=3, grid_every_epochs=9, evaluate_every_epochs=9)
    one, other = [*train(often, digits)], [*train(seldom, digits)]
    weights = last_checkpoint(one).weights
    assert same(weights, last_checkpoint(other).weights)
    assert not weights["encoder.layers.0.norm.running_mean"].eq(0).any()


def test_the_average_s_running_statistics_are_those_of_the_model(digits: Dataset) -> None:
    network = {"kind": "conv", "channels": [4], "latent_dim": 3}
    spec = spec_of(network=network, epochs=1, optimizer={"ema_decay": 0.99})
    checkpoint = last_checkpoint([*train(spec, digits)])
    name = "decoder.layers.0.norm.running_variance"
    assert torch.equal(checkpoint.weights[name], checkpoint.train_state[f"weights.{name}"])
    name = "decoder.layers.0.norm.weight"
    assert not torch.equal(checkpoint.weights[name], checkpoint.train_state[f"weights.{name}"])


def test_bfloat16_changes_the_products_and_nothing_else(digits: Dataset) -> None:
    """8 significant bits: losses agree to the third digit, and all that is kept is float32."""
    network = {"kind": "conv", "channels": [4], "latent_dim": 3}
    full, half = (
        [*train(spec_of(network=network, precision=precision), digits)]
        for precision in ("float32", "bfloat16")
    )
    for a, b in zip(metrics(full), metrics(half), strict=True):
        assert a.values["loss_nats"] != b.values["loss_nats"]
        assert a.values["loss_nats"] == pytest.approx(b.values["loss_nats"], rel=5e-3)
        assert a.values["noise_entropy_nats"] == b.values["noise_entropy_nats"]
    state = last_checkpoint(half)
    assert {tensor.dtype for tensor in state.weights.values()} == {torch.float32}
    moments = [t for name, t in state.train_state.items() if name.startswith("optimizer")]
    assert {tensor.dtype for tensor in moments} == {torch.float32}


def test_a_last_batch_of_one_picture_is_trained_on(digits: Dataset) -> None:
    """Its maps of 1×1 have one value for each channel, which says nothing of a variance."""
    network = {"kind": "conv", "channels": [4, 4, 4], "latent_dim": 2}
    rows = digits.train[:33]
    info = replace(digits.info, count=33 + len(digits.held_out))
    spec = spec_of(network=network, epochs=2, batch_size=32)
    fraction = len(digits.held_out) / info.count
    dataset = spec.dataset.model_copy(update={"held_out_fraction": fraction})
    spec = spec.model_copy(update={"dataset": dataset})
    events = [*train(spec, Dataset(info, rows, digits.held_out))]
    assert finished(events).step == 4
    assert all(t.isfinite().all() for t in last_checkpoint(events).weights.values())


@pytest.mark.parametrize(("held_out", "is_said"), [(1, False), (9, False), (10, True)])
def test_few_held_out_data_do_not_say_how_many_units_are_active(
    held_out: int, is_said: bool
) -> None:
    spec = spec_of({**RING, "held_out_fraction": held_out / 400}, epochs=1)
    [only] = metrics([*train(spec, load(spec.dataset, Path("unused")))])
    assert ("active_units" in only.values) == ("informative_units" in only.values) == is_said
    assert "held_out_elbo_nats" in only.values


def test_training_does_not_touch_the_process_s_random_state(digits: Dataset) -> None:
    before = torch.get_rng_state()
    [*train(spec_of(epochs=1), digits)]
    assert torch.equal(before, torch.get_rng_state())


def test_the_objective_falls_and_its_parts_add_up(digits: Dataset) -> None:
    every = metrics([*train(spec_of(epochs=8), digits)])
    assert every[-1].values["loss_nats"] < every[0].values["loss_nats"] - 2
    for event in every:
        v = event.values
        assert v["loss_nats"] == pytest.approx(v["reconstruction_nats"] + v["kl_nats"], rel=1e-5)
        assert v["elbo_nats"] == pytest.approx(-v["loss_nats"], rel=1e-5)
        assert v["held_out_excess_nats"] == pytest.approx(
            -v["held_out_elbo_nats"] - v["noise_entropy_nats"]
        )
        assert v["held_out_loss_nats"] == pytest.approx(-v["held_out_elbo_nats"], rel=1e-6)
        # An ELBO is below the evidence, and that, noise being independent, below −H(K).
        assert v["held_out_excess_nats"] > 0
        assert v["gradient_norm"] > 0
        assert v["data_per_s"] > 0
    assert every[-1].values["data_total_variance"] == pytest.approx(
        (digits.train.double() / 255).var(0, correction=0).sum().item(), rel=1e-6
    )


@pytest.mark.usefixtures("unhurried")
def test_the_means_of_an_epoch_weigh_every_datum_the_same(ring: Dataset) -> None:
    means = EpochMeans()
    assert means.values() == {}
    means.add(100, loss=1.0, reconstruction=0.5, kl=0.25)
    means.add(60, loss=2.0, reconstruction=4.5, kl=0.25)
    assert means.values() == pytest.approx(
        {"loss_nats": 1.375, "reconstruction_nats": 2.0, "kl_nats": 0.25, "elbo_nats": -2.25}
    )
    # 360 data in batches of 200: the second one has 160.
    spec = spec_of(RING, epochs=2, batch_size=200)
    state = last_checkpoint([*train(spec, ring, should_stop=stop_after(3))]).train_state
    assert state["epoch_rows"].item() == 200
    spec = spec_of(RING, epochs=1, batch_size=200)
    assert finished([*train(spec, ring)]).step == 2


def test_a_checkpoint_comes_at_each_named_epoch_and_a_grid_too(digits: Dataset) -> None:
    spec = spec_of(
        epochs=5, checkpoint_every_epochs=2, checkpoint_at_epochs=(3,), grid_every_epochs=4
    )
    events = [*train(spec, digits)]
    checkpoints = [event for event in events if isinstance(event, Checkpoint)]
    assert [c.epoch for c in checkpoints] == [2, 3, 4, 5]
    assert [c.is_named for c in checkpoints] == [False, True, False, False]
    assert [e.epoch for e in events if isinstance(e, Grid)] == [1, 4, 5]
    assert all(e.png.startswith(b"\x89PNG") for e in events if isinstance(e, Grid))
    assert "held_out_elbo_nats" in checkpoints[0].metrics
    assert finished(events).reason == "completed"


def test_a_checkpoint_is_a_copy(digits: Dataset) -> None:
    spec = spec_of(epochs=2, checkpoint_every_epochs=1, optimizer={"ema_decay": 0.9})
    events = train(spec, digits)
    first = next(event for event in events if isinstance(event, Checkpoint))
    before = {name: tensor.clone() for name, tensor in first.weights.items()}
    state = {name: tensor.clone() for name, tensor in first.train_state.items()}
    assert finished([*events]).reason == "completed"
    assert same(before, first.weights)
    assert same(state, first.train_state)


def test_the_moving_average_is_what_is_shown(digits: Dataset) -> None:
    """A decay of 0 is no average at all; a slow one stays near the initial weights."""
    plain = last_checkpoint([*train(spec_of(epochs=1), digits)])
    at_once = last_checkpoint([*train(spec_of(epochs=1, optimizer={"ema_decay": 0.0}), digits)])
    slow = last_checkpoint([*train(spec_of(epochs=1, optimizer={"ema_decay": 0.9999}), digits)])
    assert same(plain.weights, at_once.weights)
    name = "decoder.layers.1.weight"
    raw = slow.train_state[f"weights.{name}"]
    assert torch.equal(raw, plain.weights[name])
    assert not torch.equal(slow.weights[name], raw)


@pytest.mark.usefixtures("unhurried")
def test_the_moving_average_follows_its_definition(digits: Dataset) -> None:
    spec = spec_of(epochs=1, optimizer={"ema_decay": 0.7})
    expected: Tensor | None = None
    name, state = "encoder.layers.0.bias", None
    start = [*train(spec, digits, should_stop=lambda: True)]
    expected = last_checkpoint(start).train_state[f"weights.{name}"]
    for _ in range(5):
        events = [*train(spec, digits, resume=state, should_stop=stop_after(1))]
        state = last_checkpoint(events).train_state
        expected = 0.7 * expected + 0.3 * state[f"weights.{name}"]
    assert state is not None
    torch.testing.assert_close(state[f"average.{name}"], expected)


def test_the_best_checkpoint_is_the_one_with_the_best_metric(digits: Dataset) -> None:
    # A rate so large that the later epochs are not each better than all before.
    spec = spec_of(epochs=8, checkpoint_every_epochs=1, optimizer={"learning_rate": 0.1})
    events = [*train(spec, digits)]
    lowest = float("inf")
    verdicts = []
    for event in events:
        if isinstance(event, Checkpoint):
            cost = event.metrics["held_out_excess_nats"]
            assert event.is_best == (cost < lowest)
            lowest = min(lowest, cost)
            verdicts.append(event.is_best)
    assert True in verdicts
    assert False in verdicts


def test_early_stopping_ends_the_run_with_a_checkpoint(digits: Dataset) -> None:
    spec = spec_of(
        epochs=50,
        early_stopping={"metric": "elbo_nats", "patience": 2, "min_delta": 1e6},
        checkpoint_every_epochs=50,
    )
    events = [*train(spec, digits)]
    # The first evaluation improves on nothing, the next two not by as much as asked.
    assert finished(events).reason == "stopped_early"
    assert finished(events).epoch == 3
    assert last_checkpoint(events).epoch == 3
    assert any(isinstance(event, Grid) and event.epoch == 3 for event in events)
    again = [*train(spec, digits, resume=last_checkpoint(events).train_state)]
    assert finished(again).reason == "stopped_early"
    assert finished(again).step == finished(events).step


def test_early_stopping_waits_until_the_objective_has_settled(digits: Dataset) -> None:
    spec = spec_of(
        epochs=8,
        warm_up_epochs=5,
        early_stopping={"patience": 1, "min_delta": 1e6},
    )
    assert finished([*train(spec, digits)]).epoch == 6


@pytest.mark.parametrize("kind", ["ring", "line", "two-moons", "surface"])
def test_toys_train_to_samples_near_their_data(kind: str) -> None:
    dataset = {"kind": kind, "samples": 1000}
    spec = spec_of(
        dataset,
        network={"kind": "mlp", "hidden": [32], "latent_dim": 2},
        spread={"kind": "gaussian", "scale": 0.3},
        optimizer={"learning_rate": 5e-3},
        epochs=40,
    )
    events = [*train(spec, load(spec.dataset, Path("unused")))]
    values = metrics(events)[-1].values
    assert 0.5 < values["sample_total_variance"] / values["data_total_variance"] < 1.5
    assert values["held_out_excess_nats"] < metrics(events)[0].values["held_out_excess_nats"] - 0.5


def test_the_clean_target_comes_with_its_warning(digits: Dataset) -> None:
    events = train(spec_of(estimator="clean_target"), digits)
    first = next(events)
    assert isinstance(first, Notice)
    assert first.code == "clean_target_is_biased"
    naive = next(iter(train(spec_of(), digits)))
    assert isinstance(naive, Tick)
    assert naive.step == 1


@pytest.mark.parametrize("clip_norm", [None, 1e9])
def test_divergence_is_raised_with_the_step_and_advice(
    ring: Dataset, clip_norm: float | None
) -> None:
    spec = spec_of(
        RING,
        network={"kind": "mlp", "hidden": [64, 64, 64], "latent_dim": 2},
        spread={"kind": "gaussian", "scale": 1e-4},
        optimizer={"learning_rate": 10.0, "clip_norm": clip_norm},
        epochs=400,
    )
    with pytest.raises(Diverged, match="learning rate below 10") as caught:
        [*train(spec, ring)]
    assert caught.value.step > 0
    assert "clip_norm" in str(caught.value)


@pytest.mark.usefixtures("unhurried")
def test_a_nan_in_the_train_state_is_never_published(digits: Dataset) -> None:
    spec = spec_of()
    events = [*train(spec, digits, should_stop=stop_after(5))]
    state = dict(last_checkpoint(events).train_state)
    name = "weights.decoder.layers.0.bias"
    state[name] = torch.full_like(state[name], float("nan"))
    with pytest.raises(Diverged, match="at step 6"):
        [*train(spec, digits, resume=state)]
    with pytest.raises(Diverged, match="weights"):
        [*train(spec, digits, resume=state, should_stop=lambda: True)]


def test_the_train_state_of_another_spec_is_refused(digits: Dataset) -> None:
    state = last_checkpoint([*train(spec_of(epochs=1), digits)]).train_state
    wider = spec_of(network={"kind": "mlp", "hidden": [17], "latent_dim": 3})
    for spec in (wider, spec_of(optimizer={"ema_decay": 0.9})):
        with pytest.raises(CheckpointError, match="does not fit"):
            [*train(spec, digits, resume=state)]
    with pytest.raises(CheckpointError):
        [*train(spec_of(), digits, resume={})]


def vectors(rows: Tensor) -> tuple[Mapping[str, Any], Dataset]:
    """Five hundred to train on, the others held out."""
    info = DatasetInfo(
        name="table",
        title="",
        shape=tuple(rows.shape[1:]),
        count=len(rows),
        is_image=False,
        digest="sha256:" + "0" * 64,
        available=True,
        detail="",
    )
    spec = {"name": "table", "held_out_fraction": 1 - 500 / len(rows)}
    return spec, Dataset(info, rows[:500], rows[500:])


LEARNED_OF_VECTORS = {
    **{"every_epochs": 1, "noise_steps": 2, "encoder_steps": 2},
    "covariance": {"kind": "low_rank", "rank": 1, "components": 3},
    "mean_transform": {"kind": "mlp", "hidden": [4]},
}


@pytest.mark.parametrize("factor", [1e10, 1e19])
def test_values_beyond_float32_are_refused_with_what_to_do(factor: float) -> None:
    drawn = torch.randn(600, 5, generator=torch.Generator().manual_seed(0))
    spec, data = vectors(drawn * factor)
    for changes in ({}, {"learned_spread": LEARNED_OF_VECTORS}):
        with pytest.raises(SpecMismatch, match=r"table reach .*; standardise the columns"):
            [*train(spec_of(spec, **changes), data)]
    spec, data = vectors(drawn * 1e8)
    assert finished([*train(spec_of(spec, epochs=1), data)]).reason == "completed"


def test_data_that_do_not_vary_are_refused_where_a_gain_is_measured() -> None:
    spec, data = vectors(torch.ones(600, 5))
    with pytest.raises(SpecMismatch, match="do not vary") as refused:
        [*train(spec_of(spec, learned_spread=LEARNED_OF_VECTORS), data)]
    assert refused.value.pointer == "/trainer/learned_spread/mean_transform"
    assert finished([*train(spec_of(spec, epochs=1), data)]).reason == "completed"


def test_a_batch_larger_than_the_training_split_is_refused(ring: Dataset) -> None:
    with pytest.raises(SpecMismatch):
        [*train(spec_of(RING, batch_size=361), ring)]


@pytest.mark.usefixtures("unhurried")
def test_an_event_comes_at_least_once_a_second(digits: Dataset) -> None:
    """A step that takes a twentieth of a second, an epoch that takes many."""

    def slowly() -> bool:
        time.sleep(0.05)
        return time.monotonic() > end

    spec = spec_of(batch_size=4, epochs=1)
    end = time.monotonic() + 2.5
    kinds = []
    before = time.monotonic()
    gaps = []
    for event in train(spec, digits, should_stop=slowly):
        now = time.monotonic()
        gaps.append(now - before)
        before = now
        kinds.append(type(event))
    assert max(gaps) < 2.0  # half a second by design; the rest is for a busy machine
    assert kinds.count(Metrics) >= 1
    assert kinds.count(Tick) >= 2


@pytest.mark.usefixtures("unhurried")
def test_an_interim_metric_is_the_mean_of_the_epoch_so_far(digits: Dataset) -> None:
    def slowly() -> bool:
        time.sleep(0.1)
        return False

    spec = spec_of(epochs=1, optimizer={"learning_rate": 1e-9}, evaluate_every_epochs=9)
    events = [*train(spec, digits, should_stop=slowly)]
    interim = [e for e in events if isinstance(e, Metrics) and e.epoch < 1]
    assert interim
    assert interim[0].values["loss_nats"] == pytest.approx(
        metrics(events)[0].values["loss_nats"], rel=0.02
    )
