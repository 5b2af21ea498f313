"""The optimiser block: Adam, learning rates over the run, clipping and the weights' average."""

import math
from collections.abc import Iterable, Sequence
from typing import assert_never

import torch
from torch import Tensor, nn

from workers.spec import ConstantRate, CosineRate, Optimizer, StaircaseRate


def build_optimizer(spec: Optimizer, parameters: Iterable[nn.Parameter]) -> torch.optim.Adam:
    """Adam or AdamW in torch's fused form: one pass over memory for each step."""
    kind = torch.optim.AdamW if spec.kind == "adamw" else torch.optim.Adam
    return kind(
        parameters,
        lr=spec.learning_rate,
        betas=spec.betas,
        weight_decay=spec.weight_decay,
        fused=True,
    )


def learning_rate_at(spec: Optimizer, epoch: float, epochs: int) -> float:
    """The learning rate after ``epoch`` of ``epochs`` epochs."""
    schedule = spec.schedule
    match schedule:
        case ConstantRate():
            return spec.learning_rate
        case CosineRate():
            u = min(epoch / epochs, 1.0)
            last = schedule.final_fraction
            return spec.learning_rate * (last + (1 - last) * (1 + math.cos(math.pi * u)) / 2)
        case StaircaseRate():
            return spec.learning_rate * schedule.factor ** int(epoch // schedule.every_epochs)
        case _:
            assert_never(schedule)


def clip_gradients(parameters: Sequence[nn.Parameter], clip_norm: float | None) -> Tensor | None:
    """Scale the whole gradient to at most ``clip_norm``; returns its norm before, if measured."""
    if clip_norm is None:
        return None
    return nn.utils.clip_grad_norm_(parameters, clip_norm, foreach=True)


def gradient_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Euclidean norm of the whole gradient."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None], foreach=True)


@torch.no_grad()
def move_average(
    average: Sequence[nn.Parameter], parameters: Sequence[nn.Parameter], decay: float
) -> None:
    """average ← decay·average + (1 − decay)·parameters, in place."""
    torch._foreach_lerp_(list(average), list(parameters), 1 - decay)
