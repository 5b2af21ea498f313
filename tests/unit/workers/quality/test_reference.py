import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from workers.build import build_model, resolve
from workers.data import load
from workers.errors import Diverged
from workers.events import Artifact, Checkpoint, Event
from workers.networks import Autoencoder
from workers.quality.reference import (
    Likelihood,
    Refit,
    likelihood,
    reference_spread,
    spread_rows,
)
from workers.spec import LinearNetwork, ReferenceScales, TrainSpec
from workers.train import train

NETWORK = LinearNetwork(kind="linear", latent_dim=2)


def linear(seed: int) -> Autoencoder:
    generator = torch.Generator().manual_seed(seed)
    return Autoencoder(NETWORK, (4,), output="identity", log_std_bound=8.0, generator=generator)


def data(count: int, seed: int) -> tuple[dict[str, Tensor], Tensor]:
    """A linear decoder with orthogonal columns, whose posterior is an encoder's; and its data."""
    weight = torch.tensor([[1.0, 0.5], [1.0, -0.5], [0.3, 1.0], [-0.3, 1.0]])
    weight[:, 1] -= weight[:, 0] * (weight[:, 0] @ weight[:, 1]) / weight[:, 0].square().sum()
    bias = torch.tensor([0.1, 0.2, -0.3, 0.0])
    z = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    [name, offset] = linear(0).decoder.state_dict()
    return {name: weight, offset: bias}, z @ weight.T + bias


def fitted(
    decoder: dict[str, Tensor], spec: ReferenceScales, scale: float, train_rows: Tensor
) -> Autoencoder:
    refit = Refit(linear(5), decoder, spec, scale, 0, train_rows)
    for _ in range(spec.steps):
        refit.advance()
    return refit.model


def measured(
    model: Autoencoder, spec: ReferenceScales, scale: float, held_out: Tensor
) -> Likelihood:
    work = likelihood(model, spec, scale, 0, held_out)
    while True:
        try:
            next(work)
        except StopIteration as end:
            found: Likelihood = end.value
            return found


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_the_bound_is_below_the_exact_log_likelihood_of_a_linear_decoder_and_close(
    scale: float,
) -> None:
    decoder, rows = data(1200, 1)
    spec = ReferenceScales(steps=1500, learning_rate=1e-2, rows=200, importance_samples=200)
    held_out = rows[1000:]
    found = measured(fitted(decoder, spec, scale, rows[:1000]), spec, scale, held_out)
    y = spread_rows(held_out, reference_spread(spec, rows.device), scale, 0).double()
    weight, bias = (value.double() for value in decoder.values())
    covariance = weight @ weight.T + scale**2 * torch.eye(4, dtype=torch.float64)
    exact = float(MultivariateNormal(bias, covariance).log_prob(y).mean())
    assert found.rows == 200
    assert found.elbo < found.smaller_bound + 1e-3
    assert exact - 0.02 < found.bound < exact + 0.005
    assert found.bound - found.smaller_bound < 0.02
    assert exact - 0.1 < found.elbo < exact


def test_an_encoder_that_fits_less_bounds_less_and_more_draws_bound_more() -> None:
    decoder, rows = data(1200, 2)
    few = ReferenceScales(steps=20, rows=200, importance_samples=200)
    many = few.model_copy(update={"steps": 1500, "learning_rate": 1e-2})
    found = [
        measured(fitted(decoder, spec, 0.3, rows[:1000]), spec, 0.3, rows[1000:])
        for spec in (few, many)
    ]
    assert found[0].elbo < found[0].smaller_bound < found[0].bound < found[1].bound


def test_a_fit_leaves_the_decoder_and_differs_for_no_other_reason_than_its_seed() -> None:
    decoder, rows = data(300, 3)
    spec = ReferenceScales(steps=5)
    models = [fitted(decoder, spec, 0.5, rows) for _ in range(2)]
    for model in models:
        for name, value in model.decoder.state_dict().items():
            assert torch.equal(value, decoder[name])
    pairs = zip(*(model.encoder.state_dict().values() for model in models), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert not torch.equal(next(models[0].encoder.parameters()), next(linear(5).parameters()))


def test_a_fit_that_diverges_says_at_which_scale() -> None:
    decoder, rows = data(300, 3)
    with pytest.raises(Diverged, match=r"reference scale 0\.5"):
        fitted(decoder, ReferenceScales(), 0.5, rows * math.inf)


# --- in a run --------------------------------------------------------------------------------


def spec_of(**trainer: Any) -> TrainSpec:
    scales = {"scales": [0.2, 0.4, 0.8], "steps": 30, "rows": 40, "importance_samples": 20}
    return TrainSpec.model_validate(
        {
            "dataset": {"name": "digits"},
            "trainer": {
                "kind": "delta_vae",
                "network": {"kind": "mlp", "hidden": [16], "latent_dim": 3},
                "epochs": 1,
                "batch_size": 256,
                "quality": {"samples": 100, "components": 4, "reference_scales": scales},
                **trainer,
            },
        }
    )


def curve(events: list[Event]) -> dict[str, dict[str, Any]]:
    [content] = [
        event.content
        for event in events
        if isinstance(event, Artifact) and event.name.startswith("quality/")
    ]
    measures: dict[str, dict[str, Any]] = json.loads(content)["measures"]
    return {name: of for name, of in measures.items() if of["space"].startswith("spread-")}


def test_a_run_measures_a_curve_over_reference_scales() -> None:
    spec = spec_of()
    found = curve([*train(spec, load(spec.dataset, Path("unused")))])
    assert len(found) == 9
    for scale in ("0.2", "0.4", "0.8"):
        most = found[f"log_likelihood_gaussian_{scale}"]
        fewer = found[f"log_likelihood_gaussian_{scale}_k2"]
        assert (most["samples"], most["reference"], fewer["samples"]) == (20, 40, 2)
        assert most["standard_error"] > 0
        assert "a lower bound: K = 20, 30 steps" in most["biased"]
        assert found[f"elbo_gaussian_{scale}"]["value"] < fewer["value"] < most["value"]


def test_only_the_decoder_of_a_training_changes_the_numbers_at_reference_scales() -> None:
    """The spread, the encoder and what was learned of the noise do not."""
    one = spec_of()
    other = spec_of(
        spread={"kind": "gaussian", "scale": 0.1},
        learned_spread={"covariance": {"kind": "low_rank", "rank": 2}, "every_epochs": 1},
        epochs=2,
    )
    rows = load(one.dataset, Path("unused"))
    last = [e for e in train(one, rows) if isinstance(e, Checkpoint)][-1]
    decoder = {
        name.removeprefix("decoder."): value
        for name, value in last.weights.items()
        if name.startswith("decoder.")
    }
    quality = one.trainer.quality
    assert quality is not None
    assert quality.reference_scales is not None
    spec = quality.reference_scales.model_copy(update={"steps": 3})
    found = []
    for run in (one, other):  # models of both runs, with the decoder of one
        resolved = resolve(run, rows.info)
        model = build_model(resolved, rows.info, torch.device("cpu"))
        refit = Refit(model, decoder, spec, 0.4, run.seed, rows.train)
        for _ in range(spec.steps):
            refit.advance()
        found.append(measured(refit.model, spec, 0.4, rows.held_out))
    assert found[0] == found[1]
    ours, theirs = (curve([*train(run, rows)]) for run in (one, other))
    assert ours.keys() == theirs.keys()
    assert ours != theirs
