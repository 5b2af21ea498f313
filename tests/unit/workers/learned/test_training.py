"""Learned spreads in whole runs."""

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from workers.build import fresh_psi, resolve, weight_count
from workers.checkpoint import DatasetFacts, Description, encode_weights
from workers.costs import estimate
from workers.data import Dataset, load
from workers.decoding import Networks
from workers.directions import directions_png, sorted_directions, strongest
from workers.errors import CheckpointError, SpecMismatch
from workers.events import Artifact, Checkpoint, Event, Finished, Metrics, Notice
from workers.fork import first_state, obstacles, without_record
from workers.generate import Generator
from workers.noise_round import NoiseLearner
from workers.parallel import ALONE
from workers.rounds import Position, Rounds, total_steps
from workers.spec import DeltaVae, TrainSpec
from workers.spread.learned.covariance import LowRank
from workers.step import Stepper
from workers.train import train
from workers.train_state import start

LOW_RANK = {"kind": "low_rank", "rank": 2}
MLP = {"kind": "mlp", "hidden": [6], "blocks": 2}
BOTH = {
    **{"every_epochs": 1, "noise_steps": 3, "encoder_steps": 2, "learning_rate": 0.02},
    "covariance": LOW_RANK,
    "mean_transform": MLP,
}
FIXED = "fixed"


def spec_of(learned: Any = None, dataset: Any = None, **trainer: Any) -> TrainSpec:
    network = {"kind": "mlp", "hidden": [12], "latent_dim": 3}
    trainer = {"network": network, "epochs": 3, "batch_size": 256, **trainer}
    if learned != FIXED:
        trainer["learned_spread"] = learned or BOTH
    return TrainSpec.model_validate(
        {
            "dataset": dataset or {"name": "digits"},
            "trainer": {"kind": "delta_vae", **trainer},
        }
    )


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load(spec_of().dataset, Path("unused"))


def last(events: list[Event]) -> Checkpoint:
    return [event for event in events if isinstance(event, Checkpoint)][-1]


def stepper(spec: TrainSpec, data: Dataset) -> tuple[Stepper, Any]:
    spec = resolve(spec, data.info)
    state = start(spec, data.info, torch.device("cpu"))
    assert state.psi is not None
    state.psi.observe(data.train, 1, is_fresh=True)
    return Stepper(spec, data.info, data.train, state, ALONE), state


def tensors(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def moved(before: Mapping[str, Tensor], module: torch.nn.Module) -> set[str]:
    after = module.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_each_step_of_a_round_moves_what_it_should_and_nothing_else(digits: Dataset) -> None:
    conv = {"kind": "conv", "channels": [3], "latent_dim": 2}
    steps, state = stepper(spec_of(network=conv, optimizer={"weight_decay": 0.1}), digits)
    for _ in range(steps.steps_per_epoch):
        before = tensors(state.psi)
        steps.advance()
        assert not moved(before, state.psi)
    assert state.round_left == 5
    for expected in ("noise", "noise", "noise", "encoder", "encoder"):
        psi, model = tensors(state.psi), tensors(state.model)
        assert not steps.is_epoch_over
        steps.advance()
        if expected == "noise":
            assert "covariance.directions" in moved(psi, state.psi)
            assert not moved(model, state.model)
        else:
            assert not moved(psi, state.psi)
            found = moved(model, state.model)
            assert found
            assert all(name.startswith("encoder.") for name in found)
    assert steps.is_epoch_over
    assert state.model_step == steps.steps_per_epoch
    before = tensors(state.model)
    steps.advance()
    assert any(name.startswith("decoder.") for name in moved(before, state.model))


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_a_round_raises_the_cross_entropy(kind: str, digits: Dataset) -> None:
    """On the same draws, before and after ψ has learned, the networks the same."""
    learned = {**BOTH, "noise_steps": 60, "encoder_steps": 0}
    steps, state = stepper(spec_of(learned, spread={"kind": kind, "scale": 0.5}), digits)
    for _ in range(steps.steps_per_epoch):
        steps.advance()
    learner = steps._learner
    assert learner is not None
    rows = torch.arange(512)

    def cost() -> float:
        with torch.no_grad(), state.model.evaluating():
            return -learner._terms(rows, 0.5, torch.Generator().manual_seed(1)).loss.item()

    before = cost()
    while not steps.is_epoch_over:
        steps.advance()
    assert cost() > before + 1.0


@pytest.mark.parametrize(("ascend", "axis"), [("kl", 0), ("cross_entropy", 1)])
def test_the_best_direction_of_noise_in_figure_3_is_learned(ascend: str, axis: int) -> None:
    """Data on the line (z, 0), the model on (z, 0.3), u of length 1 at 45° to begin with.

    The KL is largest for u along the line; the cross-entropy alone prefers the other direction
    (golden 4b). An encoder that returns the prior is enough where 128 importance samples make the
    bound tight.
    """
    learned = {
        **{"ascend": ascend, "every_epochs": 1, "learning_rate": 0.05},
        "covariance": {"kind": "low_rank", "rank": 1, "strength": 1.0},
    }
    spec = spec_of(
        learned,
        {"kind": "line", "samples": 1000},
        spread={"kind": "gaussian", "scale": 0.5},
        network={"kind": "linear", "latent_dim": 1},
        importance_samples=128,
    )
    data = load(spec.dataset, Path("unused"))
    z = torch.randn(1000, 1, generator=torch.Generator().manual_seed(1))
    rows = torch.cat((z, torch.zeros_like(z)), 1)
    state = start(resolve(spec, data.info), data.info, torch.device("cpu"))
    with torch.no_grad():
        encoder, decoder = state.model.encoder.layers[0], state.model.decoder.layers[0]
        for layer in (encoder, decoder):
            assert isinstance(layer, torch.nn.Linear)
            layer.weight.zero_()
            layer.bias.zero_()
        assert isinstance(decoder, torch.nn.Linear)
        decoder.weight[0, 0] = 1.0
        decoder.bias[1] = 0.3
        assert state.psi is not None
        assert isinstance(state.psi.covariance, LowRank)
        state.psi.covariance.directions.copy_(torch.full((2, 1), math.sqrt(0.5)))
    steps = Stepper(resolve(spec, data.info), data.info, rows, state, ALONE)
    assert isinstance(steps._learner, NoiseLearner)
    generator = torch.Generator().manual_seed(2)
    for index in range(80):
        batch = torch.arange(200) + 200 * (index % 5)
        steps._learner.advance(batch, 0.5, generator, wants_stop=False)
    u = state.psi.covariance.basis()[:, 0].abs()
    assert u[axis].item() > 0.97


def test_the_rounds_of_a_run_are_counted_and_end_before_the_last_epoch() -> None:
    for every, first, warm_up, epochs in ((1, 0, 0, 4), (3, 0, 0, 10), (2, 5, 0, 12), (2, 1, 7, 9)):
        learned = {**BOTH, "every_epochs": every, "first_epoch": first}
        trainer = spec_of(learned, epochs=epochs, warm_up_epochs=warm_up).trainer
        rounds = Rounds.of(trainer)
        assert rounds is not None
        due = [epoch for epoch in range(1, epochs + 1) if rounds.is_due(epoch)]
        assert due == [
            epoch
            for epoch in range(1, epochs)
            if epoch % every == 0 and epoch >= max(first, warm_up)
        ]
        assert rounds.final == due[-1]
        for epoch in range(epochs + 1):
            assert rounds.after(epoch) == sum(later > epoch for later in due)
        assert total_steps(trainer, 10, Position()) == 10 * epochs + 5 * len(due)
        # Seen from within a round, and from a fork that had none before.
        inside = Position(10 * due[0] + 2, 2, 0, 3)
        assert total_steps(trainer, 10, inside) == 10 * epochs + 5 * len(due)
        fork = Position(10 * due[0])
        assert total_steps(trainer, 10, fork) == 10 * epochs + 5 * (len(due) - 1)
    assert Rounds.of(spec_of(FIXED).trainer) is None


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_metrics_and_pictures_say_what_was_learned(kind: str, digits: Dataset) -> None:
    spread = {"kind": kind, "scale": 0.5}
    events = [*train(spec_of({**BOTH, "noise_steps": 30}, spread=spread), digits)]
    values = [event.values for event in events if isinstance(event, Metrics)][-1]
    limit = math.log(256)
    assert values["information_limit_nats"] == pytest.approx(limit)
    assert 0 < values["information_nats"] <= limit + 1e-4
    assert values["spread_gain"] != 1
    strength, scale = 2.0, 0.5  # c is 4 × the scale
    one = {"gaussian": math.log(2 * math.pi * math.e) / 2, "laplace": 1 + math.log(2) / 2}[kind]
    entropy = 64 * (one + math.log(scale))
    entropy += 2 * math.log(math.sqrt(1 + (strength / scale) ** 2))
    assert values["noise_entropy_nats"] == pytest.approx(entropy)
    pictures = [event for event in events if isinstance(event, Artifact)]
    assert [picture.name for picture in pictures] == [
        "directions/00000039.png",
        "directions/00000085.png",
    ]
    assert all(picture.content.startswith(b"\x89PNG") for picture in pictures)
    assert pictures[0].content != pictures[1].content


@pytest.mark.parametrize(
    ("scale", "ascend", "warned"),
    [(0.2, "cross_entropy", 0), (5.0, "cross_entropy", 1), (5.0, "kl", 0)],
)
def test_noise_that_mixes_up_data_is_told_once_where_the_cross_entropy_is_ascended(
    scale: float, ascend: str, warned: int, digits: Dataset
) -> None:
    spec = spec_of({**BOTH, "ascend": ascend}, spread={"kind": "laplace", "scale": scale})
    notices = [event for event in train(spec, digits) if isinstance(event, Notice)]
    assert [notice.code for notice in notices] == ["noise_mixes_up_data"] * warned


def test_directions_are_shown_by_how_much_the_data_vary_along_them() -> None:
    spread = torch.tensor([1.0, 5.0, 0.1, 3.0])
    rows = torch.randn(2000, 4, generator=torch.Generator().manual_seed(1)) * spread
    turn = torch.tensor([[0.8, 0.6], [-0.6, 0.8]])
    basis = torch.eye(4)[:, [1, 3]] @ turn  # the span of two axes, turned within
    found = sorted_directions(basis, rows)
    assert found == pytest.approx(np.eye(4)[[1, 3]], abs=0.05)


def test_the_chart_of_directions_shows_the_strongest_of_neighbours() -> None:
    directions = np.array([[0.1, -0.2, 0.3, 0.0, 0.1], [0.0, 0.0, -0.1, 0.5, -0.6]])
    assert strongest(directions, 2).tolist() == [[0.3, 0.1], [-0.1, -0.6]]
    assert np.array_equal(strongest(directions, 99), directions)


@pytest.mark.parametrize(("rank", "dimensions"), [(1, 1), (2, 3), (60, 5000)])
def test_a_chart_of_directions_has_one_size_whatever_there_is_to_show(
    rank: int, dimensions: int
) -> None:
    """A chart with an axis for each direction took minutes and gigabytes, at every grid."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(dimensions, rank, generator=generator))[0]
    rows = torch.randn(80, dimensions, generator=generator)
    png = directions_png(basis, rows, (dimensions,), is_image=False)
    width, height = Image.open(io.BytesIO(png)).size
    assert width == 720
    assert height <= 140 + 16 * 22


@pytest.mark.parametrize("components", [None, 7])
def test_a_checkpoint_alone_spreads_as_training_did(
    components: int | None, digits: Dataset, tmp_path: Path
) -> None:
    learned = {**BOTH, "noise_steps": 30, "covariance": {**LOW_RANK, "components": components}}
    spec = resolve(spec_of(learned), digits.info)
    checkpoint = last([*train(spec, digits)])
    assert sum(t.numel() for t in checkpoint.weights.values()) == weight_count(spec, (8, 8))
    encode_weights(checkpoint, spec, digits.info, tmp_path / "weights")
    generator = Generator.load(tmp_path / "weights")
    psi = fresh_psi(spec, (8, 8), torch.device("cpu"))
    assert psi is not None
    psi.load_state_dict(
        {k.removeprefix("spread."): v for k, v in checkpoint.weights.items() if k[0] == "s"}
    )
    assert psi.covariance is not None
    assert psi.transform is not None
    x = np.repeat(digits.held_out[:1].numpy().reshape(1, 8, 8) / 255, 20_000, 0).astype(np.float32)
    y = torch.from_numpy(generator.spread(x, seed=3)).flatten(1).double()
    mean = psi.transform(torch.from_numpy(x[:1]).flatten(1)).double()
    q = psi.covariance.basis().double()
    expected = 0.25 * torch.eye(64) + 4.0 * q @ q.T
    bound = 6 * (6 * torch.outer(expected.diagonal(), expected.diagonal()) / len(y)).sqrt()
    assert bool(((y.T.cov() - expected).abs() < bound).all())
    assert bool(((y.mean(0) - mean[0]).abs() < 6 * (expected.diagonal() / len(y)).sqrt()).all())
    assert (generator.spread(x[:5], seed=3) == generator.spread(x, seed=3)[:5]).all()
    samples = generator.sample(3, seed=1, spread=True)
    assert (samples == generator.sample(9, seed=1, spread=True)[:3]).all()
    assert not (samples == generator.sample(3, seed=1)).any()


def test_the_rival_spreads_with_its_own_scale(digits: Dataset) -> None:
    rival = {**BOTH, "covariance": {"kind": "equal_entropy", "rank": 2}, "mean_transform": None}
    spec = resolve(spec_of(rival), digits.info)
    state = start(spec, digits.info, torch.device("cpu"))
    facts = DatasetFacts(name="digits", digest="sha256:0", shape=(8, 8), is_image=True)
    description = Description(spec=spec, dataset=facts, step=1, epoch=1.0)
    generator = Generator(description, Networks.of(spec, 1.0, state.model, state.psi))
    x = np.zeros((4000, 8, 8), np.float32)
    y = generator.spread(x)
    scale = 0.5 * math.sqrt(17) ** (2 / 64)
    assert y.std() == pytest.approx(scale, rel=6 * math.sqrt(5 / y.size) / 2)


def test_a_weights_file_without_what_its_spec_learns_is_refused(
    digits: Dataset, tmp_path: Path
) -> None:
    spec = resolve(spec_of(), digits.info)
    checkpoint = last([*train(spec, digits)])
    fewer = {k: v for k, v in checkpoint.weights.items() if not k.startswith("spread.")}
    broken = Checkpoint(**{**vars_of(checkpoint), "weights": fewer})
    encode_weights(broken, spec, digits.info, tmp_path / "weights")
    with pytest.raises(CheckpointError, match="do not fit"):
        Generator.load(tmp_path / "weights")


@pytest.mark.parametrize(
    "change",
    [
        {"learned_spread": {**BOTH, "mean_transform": {"kind": "conv"}}},
        {"learned_spread": {**BOTH, "covariance": {"kind": "low_rank", "rank": 3}}},
        {"spread": {"kind": "laplace", "pixel_scales": [1.0, 2.0, 3.0]}},
    ],
)
def test_a_weights_file_whose_spec_does_not_fit_it_is_refused(
    change: dict[str, Any], tmp_path: Path
) -> None:
    """Vectors of two dimensions, and a description that says other things."""
    ring = {"kind": "ring", "samples": 400}
    spec = spec_of(BOTH, ring)
    data = load(spec.dataset, Path("unused"))
    checkpoint = last([*train(spec, data)])
    content = spec.model_dump()
    content["trainer"] |= change
    claimed = TrainSpec.model_validate(content)
    encode_weights(checkpoint, claimed, data.info, tmp_path / "weights")
    with pytest.raises(CheckpointError, match="do not fit"):
        Generator.load(tmp_path / "weights")


def vars_of(checkpoint: Checkpoint) -> dict[str, Any]:
    return {name: getattr(checkpoint, name) for name in Checkpoint.__slots__}


def description(spec: TrainSpec, data: Dataset, checkpoint: Checkpoint) -> Description:
    return Description(
        spec=resolve(spec, data.info),
        dataset=DatasetFacts.of(data.info),
        step=checkpoint.step,
        epoch=checkpoint.epoch,
    )


def test_a_fork_of_a_fixed_spread_begins_to_learn_it(digits: Dataset) -> None:
    fixed = spec_of(FIXED, epochs=2)
    checkpoint = last([*train(fixed, digits)])
    learned = resolve(spec_of(epochs=4), digits.info)
    assert not [
        *obstacles("train_state", description(fixed, digits, checkpoint), learned, digits.info)
    ]
    state = without_record(checkpoint.train_state)
    events = [*train(learned, digits, resume=state)]
    ended = events[-1]
    assert isinstance(ended, Finished)
    # 14 steps before the fork, 14 after it, and one round of 5 after epoch 3.
    assert ended.step == total_steps(learned.trainer, 7, Position.of(state)) == 33
    # Weights alone: from step 0, with rounds after epochs 1, 2 and 3.
    events = [*train(learned, digits, resume=first_state(checkpoint.weights))]
    assert isinstance(events[-1], Finished)
    assert events[-1].step == 4 * 7 + 3 * 5


def test_a_fork_of_a_learned_spread_keeps_what_was_learned_or_leaves_it(digits: Dataset) -> None:
    learned = spec_of()
    checkpoint = last([*train(learned, digits)])
    name = "spread.covariance.directions"
    longer = spec_of(epochs=4)
    before = next(
        event
        for event in train(
            longer, digits, resume=first_state(checkpoint.weights), should_stop=lambda: True
        )
        if isinstance(event, Checkpoint)
    )
    assert torch.equal(before.weights[name], checkpoint.weights[name])
    on = [*train(longer, digits, resume=without_record(checkpoint.train_state))]
    assert isinstance(on[-1], Finished)
    assert on[-1].step == checkpoint.step + 7  # no round comes before the first step
    assert torch.equal(last(on).weights[name], checkpoint.weights[name])
    left = [*train(spec_of(FIXED, epochs=4), digits, resume=without_record(checkpoint.train_state))]
    assert isinstance(left[-1], Finished)
    assert left[-1].step == checkpoint.step + 7
    assert name not in last(left).weights
    about = description(learned, digits, checkpoint)
    for change, field in (
        ({"covariance": {**LOW_RANK, "rank": 3}}, "covariance"),
        ({"mean_transform": {**MLP, "blocks": 3}}, "mean_transform"),
    ):
        other = resolve(spec_of({**BOTH, **change}), digits.info)
        found = [*obstacles("weights", about, other, digits.info)]
        assert [o.pointer for o in found] == [f"/trainer/learned_spread/{field}"]
    softer = {**BOTH, "mean_transform": {**MLP, "coefficient": 0.5}, "learning_rate": 0.5}
    again = resolve(spec_of(softer), digits.info)
    assert not [*obstacles("weights", about, again, digits.info)]


@pytest.mark.parametrize(
    ("learned", "pointer"),
    [
        ({}, ""),
        ({"covariance": {"kind": "low_rank", "rank": 65}}, "/covariance/rank"),
        ({"covariance": {**LOW_RANK, "components": 1}}, "/covariance/components"),
        ({"covariance": {**LOW_RANK, "components": 65}}, "/covariance/components"),
        ({"covariance": LOW_RANK, "every_epochs": 3}, "/every_epochs"),
        ({"covariance": LOW_RANK, "every_epochs": 1, "first_epoch": 3}, "/every_epochs"),
    ],
)
def test_what_cannot_be_learned_is_refused_with_a_pointer(
    learned: dict[str, Any], pointer: str, digits: Dataset
) -> None:
    spec = spec_of({"every_epochs": 1, **learned} if pointer != "/every_epochs" else learned)
    if not learned:
        spec = spec_of({"every_epochs": 1})
    with pytest.raises(SpecMismatch) as caught:
        resolve(spec, digits.info)
    assert caught.value.pointer == f"/trainer/learned_spread{pointer}"


def test_a_convolutional_transform_of_vectors_is_refused() -> None:
    learned = {"every_epochs": 1, "mean_transform": {"kind": "conv"}}
    spec = spec_of(learned, {"kind": "ring", "samples": 400})
    info = load(spec.dataset, Path("unused")).info
    with pytest.raises(SpecMismatch, match="convolutions need pictures"):
        resolve(spec, info)


@pytest.mark.parametrize(
    "transform", [MLP, {"kind": "conv", "channels": 3}, {"kind": "conv", "layers": 2, "blocks": 1}]
)
def test_the_estimate_counts_what_is_learned(transform: Any, digits: Dataset) -> None:
    learned = {**BOTH, "mean_transform": transform, "covariance": {**LOW_RANK, "components": 5}}
    spec = resolve(spec_of(learned), digits.info)
    state = start(spec, digits.info, torch.device("cpu"))
    assert isinstance(spec.trainer, DeltaVae)
    assert state.psi is not None
    own = sum(p.numel() for p in state.model.parameters())
    psi = sum(p.numel() for p in state.psi.parameters())
    found, fixed = (estimate(resolve(s, digits.info), digits.info) for s in (spec, spec_of(FIXED)))
    assert found.parameters == own + psi
    assert fixed.parameters == own
    assert found.worker_memory_bytes > fixed.worker_memory_bytes
    pairs = estimate(resolve(spec_of({**learned, "ascend": "kl"}), digits.info), digits.info)
    assert pairs.worker_memory_bytes > found.worker_memory_bytes
