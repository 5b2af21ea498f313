"""The optimiser block: Adam, learning rates over the run, clipping and the weights' average."""

import math
from collections.abc import Iterable, Sequence
from typing import assert_never

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.adamw import adamw

from workers.spec import ConstantRate, CosineRate, Optimizer, StaircaseRate

_EPSILON = 1e-8  # beside the root of the second moment


class Adam:
    """Adam (Kingma and Ba, ICLR 2015), or AdamW (Loshchilov and Hutter, ICLR 2019).

    The arithmetic is torch's, bit for bit, by the function beneath its class: the class imports
    torch's compiler at its first use, which costs a process more than a second and 70 MiB.

    ``state`` has for each parameter that was ever moved its ``step`` and its moments ``exp_avg``
    and ``exp_avg_sq``. ``learning_rate`` may be changed between steps. ``is_decoupled`` is AdamW's
    decay, past the moments. ``is_fused`` makes one pass over memory for each step.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        *,
        is_decoupled: bool = False,
        is_fused: bool = True,
    ) -> None:
        self.learning_rate = learning_rate
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        self._parameters = list(parameters)
        self._betas = betas
        self._weight_decay = weight_decay
        self._update = adamw if is_decoupled else adam
        self._is_fused = is_fused

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters that have a gradient; the others stay, and so do their moments."""
        moved = [parameter for parameter in self._parameters if parameter.grad is not None]
        states = [self.state.get(parameter) or self._begin(parameter) for parameter in moved]
        self._update(
            moved,
            [parameter.grad for parameter in moved if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=self._is_fused,
            amsgrad=False,
            beta1=self._betas[0],
            beta2=self._betas[1],
            lr=self.learning_rate,
            weight_decay=self._weight_decay,
            eps=_EPSILON,
            maximize=False,
        )

    def _begin(self, parameter: Tensor) -> dict[str, Tensor]:
        # torch counts steps in float32, on the parameter's device where it is fused.
        device = parameter.device if self._is_fused else "cpu"
        state = {
            "step": torch.zeros((), dtype=torch.float32, device=device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
        self.state[parameter] = state
        return state


def build_optimizer(spec: Optimizer, parameters: Iterable[nn.Parameter]) -> Adam:
    """Adam or AdamW as the spec has it."""
    return Adam(
        parameters,
        spec.learning_rate,
        spec.betas,
        spec.weight_decay,
        is_decoupled=spec.kind == "adamw",
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
