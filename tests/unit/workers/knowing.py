"""A generator whose weights are known: linear maps of vectors of three numbers."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from workers.build import empty_model
from workers.checkpoint import DatasetFacts, Description
from workers.decoding import Networks
from workers.generate import Generator
from workers.spec import TrainSpec

D, Z = 3, 2


def spec_of(**trainer: Any) -> TrainSpec:
    network = {"kind": "linear", "latent_dim": Z}
    return TrainSpec.model_validate(
        {
            "dataset": {"kind": "surface", "samples": 100},
            "trainer": {"kind": "delta_vae", "network": network, **trainer},
        }
    )


def linear_generator(
    weights: tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]] | None = None,
    epoch: float = 1.0,
    **trainer: Any,
) -> Generator:
    """g(z) = Az + b and μ(y) = Wy + c, for weights (A, b, W, c); zeros where none are given."""
    spec = spec_of(**trainer)
    model = empty_model(spec, (D,), is_image=False, generator=torch.Generator().manual_seed(0))
    zeros = (np.zeros((D, Z)), np.zeros(D), np.zeros((Z, D)), np.zeros(Z))
    a, b, w, c = (torch.tensor(part, dtype=torch.float32) for part in weights or zeros)
    with torch.no_grad():
        decoder, encoder = model.decoder.layers[0], model.encoder.layers[0]
        assert isinstance(decoder, torch.nn.Linear)
        assert isinstance(encoder, torch.nn.Linear)
        decoder.weight.copy_(a)
        decoder.bias.copy_(b)
        encoder.weight.copy_(torch.cat((w, torch.zeros_like(w))))
        encoder.bias.copy_(torch.cat((c, torch.zeros_like(c))))
    facts = DatasetFacts(name="surface", digest="sha256:0", shape=(D,), is_image=False)
    description = Description(spec=spec, dataset=facts, step=1, epoch=epoch)
    return Generator(description, Networks(spec, epoch, model))
