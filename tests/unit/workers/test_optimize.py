import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from workers.optimize import (
    Adam,
    build_optimizer,
    clip_gradients,
    gradient_norm,
    learning_rate_at,
)
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


@pytest.mark.parametrize("weight_decay", [0.0, 0.02])
@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_fifty_steps_are_those_of_torchs_own_class_bit_for_bit(
    kind: str, weight_decay: float
) -> None:
    spec = Optimizer.model_validate({"kind": kind, "weight_decay": weight_decay})
    ours, theirs = (_weights() for _ in range(2))
    optimizer = build_optimizer(spec, ours)
    theirs_of = torch.optim.AdamW if kind == "adamw" else torch.optim.Adam
    oracle = theirs_of(
        theirs, lr=spec.learning_rate, betas=spec.betas, weight_decay=weight_decay, fused=True
    )
    _take_steps(optimizer, ours, oracle, theirs)


def test_so_are_those_of_the_other_form_in_double_precision() -> None:
    ours, theirs = ([one.detach().double().requires_grad_()] for one in _weights()[:1] * 2)
    _take_steps(Adam(ours, 0.1, is_fused=False), ours, torch.optim.Adam(theirs, lr=0.1), theirs)


def _weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    draws = [torch.randn(shape, generator=generator) for shape in ((37, 11), (7,), (5, 3, 5, 5))]
    draws[2] = draws[2].contiguous(memory_format=torch.channels_last)
    return [nn.Parameter(draw) for draw in draws]


def _take_steps(
    optimizer: Adam,
    ours: Sequence[Tensor],
    oracle: torch.optim.Adam,
    theirs: Sequence[Tensor],
) -> None:
    """At changing learning rates, and some without a gradient of the last parameter."""
    generator = torch.Generator().manual_seed(2)
    for step in range(50):
        optimizer.zero_grad()
        assert all(one.grad is None for one in ours)
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            gradient = torch.randn(one.shape, generator=generator, dtype=one.dtype)
            is_still = index == 2 and step % 3 == 0
            one.grad, other.grad = (None if is_still else gradient.clone() for _ in range(2))
        optimizer.learning_rate = oracle.param_groups[0]["lr"] = 0.01 / (1 + step)
        optimizer.step()
        oracle.step()
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one, other)
            state = optimizer.state.get(one, {})
            assert state.keys() == oracle.state[other].keys()
            for name, value in state.items():
                assert torch.equal(value, oracle.state[other][name])
                assert value.stride() == oracle.state[other][name].stride()


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
