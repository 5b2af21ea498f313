import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from workers.checkpoint import DatasetFacts, Description, encode_weights
from workers.data import load
from workers.errors import CheckpointError, SpecMismatch
from workers.events import Artifact, Checkpoint, Event, Finished, Metrics
from workers.generate import Generator
from workers.kinds import (
    carried_over,
    epochs,
    estimate,
    first_checkpoint,
    obstacles,
    plan,
    resolve,
    taken_over,
    train,
)
from workers.metrics import as_float
from workers.spec import JOB_SPEC, IcaSpec, RefitSpec, TrainSpec

PARENT = TrainSpec.model_validate(
    {
        "dataset": {"name": "digits"},
        "trainer": {
            "kind": "delta_vae",
            "network": {"kind": "mlp", "hidden": [8], "latent_dim": 2},
            "epochs": 1,
            "batch_size": 256,
            "spread": {"kind": "laplace", "scale": 0.7},
        },
    }
)
DATA = load(PARENT.dataset, Path("unused"))
BUDGET = {"scales": [0.2, 0.4, 0.8], "steps": 12, "rows": 40, "importance_samples": 20}


def refit_of(parent: TrainSpec, **trainer: Any) -> RefitSpec:
    content = carried_over(parent, "refit_encoder")
    content["trainer"] |= {"kind": "refit_encoder", **BUDGET, **trainer}
    spec = resolve(JOB_SPEC.validate_python(content), DATA.info)
    assert isinstance(spec, RefitSpec)
    return spec


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    """Those of the parent's last checkpoint."""
    last = [e for e in train(PARENT, DATA) if isinstance(e, Checkpoint)][-1]
    return dict(last.weights)


def run(
    spec: RefitSpec, state: dict[str, Tensor], should_stop: Callable[[], bool] = lambda: False
) -> list[Event]:
    return [*train(spec, DATA, resume=state, should_stop=should_stop)]


def checkpoints(events: list[Event]) -> list[Checkpoint]:
    return [event for event in events if isinstance(event, Checkpoint)]


def curve(events: list[Event]) -> dict[str, Any]:
    content, png = [event.content for event in events if isinstance(event, Artifact)]
    assert png.startswith(b"\x89PNG")
    measures: dict[str, Any] = json.loads(content)["measures"]
    return measures


def test_a_refit_leaves_a_curve_and_an_encoder_for_each_scale(weights: dict[str, Tensor]) -> None:
    spec = refit_of(PARENT)
    events = run(spec, taken_over(spec, "weights", weights))
    assert [checkpoint.step for checkpoint in checkpoints(events)] == [12, 24, 36]
    for checkpoint in checkpoints(events):
        for name, value in checkpoint.weights.items():
            is_kept = torch.equal(value, weights[name])
            assert is_kept == name.startswith("decoder.")
    measures = curve(events)
    assert len(measures) == 9
    assert measures["log_likelihood_gaussian_0.4"]["reference"] == 40
    values: dict[str, float] = {}
    for event in events:
        values |= event.values if isinstance(event, Metrics) else {}
    assert values["log_likelihood_gaussian_0.8"] == measures["log_likelihood_gaussian_0.8"]["value"]
    last = events[-1]
    assert isinstance(last, Finished)
    assert (last.step, last.epoch, last.reason) == (36, 3, "completed")


def test_a_refit_and_the_quality_of_a_run_give_the_same_numbers(
    weights: dict[str, Tensor],
) -> None:
    content = PARENT.model_dump()
    content["trainer"]["quality"] = {"samples": 100, "components": 4, "reference_scales": BUDGET}
    events = [*train(TrainSpec.model_validate(content), DATA)]
    assert torch.equal(
        checkpoints(events)[-1].weights["decoder.layers.0.weight"],
        weights["decoder.layers.0.weight"],
    )
    [report] = [
        json.loads(event.content)["measures"]
        for event in events
        if isinstance(event, Artifact) and event.name.startswith("quality/")
    ]
    spec = refit_of(PARENT, batch_size=100)
    for name, measure in curve(run(spec, taken_over(spec, "weights", weights))).items():
        assert measure == report[name]


@pytest.mark.parametrize("asked", [0, 7, 13, 18, 40, 50])
def test_a_refit_that_is_stopped_anywhere_goes_on_bit_for_bit(
    weights: dict[str, Tensor], asked: int
) -> None:
    spec = refit_of(PARENT)
    state = taken_over(spec, "weights", weights)
    whole = run(spec, state)
    calls: Iterator[int] = itertools.count()
    part = run(spec, state, lambda: next(calls) >= asked)
    end = part[-1]
    assert isinstance(end, Finished)
    assert end.reason == "interrupted"
    kept = checkpoints(part)[-1]
    steps = [checkpoint.step for checkpoint in checkpoints(part)]
    assert len(set(steps)) == len(steps)
    assert plan(spec, len(DATA.train), kept.train_state).step == kept.step == end.step
    rest = run(spec, dict(kept.train_state))
    assert curve(rest) == curve(whole)
    for name, value in checkpoints(whole)[-1].weights.items():
        assert torch.equal(checkpoints(rest)[-1].weights[name], value)
    assert isinstance(run(spec, dict(checkpoints(whole)[-1].train_state))[-1], Finished)


def test_a_step_of_a_refit_takes_all_data_where_there_are_fewer(weights: dict[str, Tensor]) -> None:
    rows = len(DATA.train)
    larger = refit_of(PARENT, batch_size=rows + 1)
    assert larger.trainer.batch_size == rows + 1
    found, same = (
        curve(run(spec, taken_over(spec, "weights", weights)))
        for spec in (larger, refit_of(PARENT, batch_size=rows))
    )
    assert found == same


def test_the_checkpoint_of_a_scale_samples_and_spreads_with_its_noise(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    spec = refit_of(PARENT, noise="laplace")
    events = checkpoints(run(spec, taken_over(spec, "weights", weights)))
    found = []
    for index, checkpoint in enumerate(events):
        path = tmp_path / f"{index}.safetensors"
        encode_weights(checkpoint, spec, DATA.info, path)
        found.append(Generator.load(path))
    assert [generator.encoder_noise for generator in found] == pytest.approx([0.2, 0.4, 0.8])
    assert (found[0].sample(3) == found[2].sample(3)).all()
    rows = as_float(DATA.held_out[:4]).numpy().reshape(4, 8, 8)
    y = found[0].spread(rows)
    assert (found[0].encode(y) != found[2].encode(y)).any()


def test_what_a_refit_costs_is_known_before() -> None:
    spec = refit_of(PARENT)
    costs = estimate(spec, DATA.info)
    assert costs.steps == 36
    assert epochs(spec) == 3
    assert first_checkpoint(spec) == "after the encoder of the first scale"


def test_a_refit_needs_a_decoder_of_its_network_and_data_it_has_not_seen() -> None:
    spec = refit_of(PARENT)
    with pytest.raises(CheckpointError, match="fork a job"):
        next(train(spec, DATA))
    description = Description(spec=PARENT, dataset=DatasetFacts.of(DATA.info), step=1, epoch=1.0)
    resolved = resolve(PARENT, DATA.info)
    assert isinstance(resolved, TrainSpec)
    good = description.model_copy(update={"spec": resolved})
    assert [*obstacles("weights", good, spec, DATA.info)] == []
    [refused] = obstacles("train_state", good, spec, DATA.info)
    assert 'start "weights"' in str(refused)
    other = refit_of(PARENT, network={"kind": "mlp", "hidden": [9], "latent_dim": 2})
    [refused] = obstacles("weights", good, other, DATA.info)
    assert refused.pointer == "/trainer/network"
    resplit = spec.model_copy(update={"dataset": spec.dataset.model_copy(update={"split_seed": 1})})
    [refused] = obstacles("weights", good, resplit, DATA.info)
    assert refused.pointer == "/dataset/split_seed"
    ica = IcaSpec.model_validate(
        {"dataset": {"kind": "laplace-ica"}, "trainer": {"kind": "ica", "components": 2}}
    )
    [refused] = obstacles("weights", description.model_copy(update={"spec": ica}), spec, DATA.info)
    assert "mixing matrix" in str(refused)
    several = spec.model_copy(
        update={"resources": spec.resources.model_copy(update={"workers": 2})}
    )
    with pytest.raises(SpecMismatch, match="one worker"):
        resolve(several, DATA.info)


@pytest.mark.parametrize("noise", ["gaussian", "laplace"])
def test_each_scale_that_a_refit_may_have_is_one_of_a_spread(noise: str) -> None:
    content = {
        "dataset": {"name": "digits"},
        "trainer": {
            "kind": "refit_encoder",
            "network": {"kind": "mlp", "hidden": [8], "latent_dim": 2},
            "noise": noise,
            "scales": [1e-4, 1.0, 1e4],
        },
    }
    spec = RefitSpec.model_validate(content)
    assert resolve(spec, DATA.info).trainer.kind == "refit_encoder"
