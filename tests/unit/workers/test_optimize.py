import math

import pytest
import torch
from torch import nn

from workers.optimize import build_optimizer, clip_gradients, gradient_norm, learning_rate_at
from workers.seeds import SeedStream
from workers.spec import ConstantRate, CosineRate, Optimizer, StaircaseRate


def test_learning_rates_start_and_end_where_they_should() -> None:
    constant = Optimizer(learning_rate=0.1, schedule=ConstantRate(kind="constant"))
    assert {learning_rate_at(constant, epoch, 10) for epoch in (0, 5, 10)} == {0.1}
    cosine = Optimizer(learning_rate=0.1, schedule=CosineRate(kind="cosine", final_fraction=0.2))
    assert learning_rate_at(cosine, 0, 10) == pytest.approx(0.1)
    assert learning_rate_at(cosine, 5, 10) == pytest.approx(0.06)
    assert learning_rate_at(cosine, 10, 10) == pytest.approx(0.02)
    stairs = StaircaseRate(kind="staircase", every_epochs=3, factor=0.5)
    staircase = Optimizer(learning_rate=0.1, schedule=stairs)
    rates = [learning_rate_at(staircase, epoch, 10) for epoch in (0, 2.99, 3, 5.99, 6)]
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025])


def test_the_gradient_is_clipped_to_the_norm_and_no_further() -> None:
    layer = nn.Linear(3, 2)
    for scale, expected in ((10.0, 5.0), (0.1, None)):
        for parameter in layer.parameters():
            parameter.grad = torch.full_like(parameter, scale)
        before = gradient_norm([*layer.parameters()]).item()
        assert before == pytest.approx(scale * math.sqrt(8))
        norm = clip_gradients([*layer.parameters()], 5.0)
        assert norm is not None
        assert norm.item() == pytest.approx(before)
        after = gradient_norm([*layer.parameters()]).item()
        assert after == pytest.approx(expected or before, rel=1e-4)
        assert clip_gradients([*layer.parameters()], None) is None


def test_weight_decay_is_coupled_in_adam_and_decoupled_in_adamw() -> None:
    """With a zero gradient Adam normalises the decay term to a step of the learning rate."""
    moved = {}
    for kind in ("adam", "adamw"):
        weight = nn.Parameter(torch.full((4,), 2.0))
        spec = Optimizer.model_validate({"kind": kind, "learning_rate": 0.1, "weight_decay": 0.01})
        optimizer = build_optimizer(spec, [weight])
        weight.grad = torch.zeros(4)
        optimizer.step()
        moved[kind] = 2.0 - weight[0].item()
    assert moved["adam"] == pytest.approx(0.1, rel=1e-3)
    assert moved["adamw"] == pytest.approx(0.1 * 0.01 * 2.0, rel=1e-3)


def test_the_low_bits_of_seeds_never_repeat_within_a_stream() -> None:
    """torch's generator for the CPU sees the low 32 bits only."""
    stream = SeedStream(0, "noise")
    seeds = {stream.at(step) & 0xFFFF_FFFF for step in range(100_000)}
    assert len(seeds) == 100_000
    generator = torch.Generator()
    states = set()
    for step in range(20):
        generator.manual_seed(stream.at(step))
        states.add(torch.rand(1, generator=generator).item())
    assert len(states) == 20


def test_streams_and_seeds_are_told_apart() -> None:
    firsts = {SeedStream(seed, name).at(0) for seed in range(50) for name in ("a", "b")}
    assert len(firsts) == 100
    assert SeedStream(3, "a").at(7) == SeedStream(3, "a").at(7)
