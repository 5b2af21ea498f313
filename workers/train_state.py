"""Everything that a run carries from one step to the next, and its form as named tensors.

There is no state of a random number generator in it: what a step draws follows from the seed and
the step's number (see seeds.py).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from workers.build import build_model
from workers.data import DatasetInfo
from workers.errors import CheckpointError
from workers.metrics import EpochMeans
from workers.networks import Autoencoder
from workers.networks.batch_norm import Reduce
from workers.optimize import build_optimizer
from workers.spec import TrainSpec

STATE_VERSION = 1

_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(slots=True)
class TrainState:
    """A run between two steps.

    ``average`` holds the moving average of the weights where the spec asks for one. ``best`` and
    ``stopping_best`` are the lowest held-out costs so far, of all checkpoints and of all
    evaluations; ``stale`` counts evaluations without improvement.
    """

    model: Autoencoder
    optimizer: torch.optim.Adam
    average: Autoencoder | None
    step: int = 0
    means: EpochMeans = field(default_factory=EpochMeans)
    best: float = math.inf
    stopping_best: float = math.inf
    stale: int = 0

    @property
    def shown(self) -> Autoencoder:
        """The model that evaluation, grids and checkpoints show."""
        return self.average or self.model


def start(
    spec: TrainSpec, info: DatasetInfo, device: torch.device, reduce: Reduce | None = None
) -> TrainState:
    """The state before the first step, a function of the spec's seed."""
    model = build_model(spec, info, device, reduce)
    average = None
    if spec.trainer.optimizer.ema_decay is not None:
        # The same weights again; it is never trained, so it has nothing to sum with others.
        average = build_model(spec, info, device).requires_grad_(requires_grad=False).eval()
    return TrainState(model, build_optimizer(spec.trainer.optimizer, model.parameters()), average)


def snapshot_weights(state: TrainState) -> dict[str, Tensor]:
    """Copies of the weights that samples are drawn with, on the CPU."""
    return {name: _copy(tensor) for name, tensor in state.shown.state_dict().items()}


def snapshot(state: TrainState) -> dict[str, Tensor]:
    """Copies of all that resuming needs besides the spec, on the CPU."""
    tensors = {
        "version": torch.tensor(STATE_VERSION),
        "step": torch.tensor(state.step),
        "stale": torch.tensor(state.stale),
        "best": torch.tensor([state.best, state.stopping_best], dtype=torch.float64),
        "epoch_rows": torch.tensor(state.means.rows),
        "epoch_sums": torch.tensor(
            [state.means.loss, state.means.reconstruction, state.means.kl], dtype=torch.float64
        ),
    }
    for name, parameter in state.model.named_parameters():
        tensors[f"weights.{name}"] = _copy(parameter)
        moments = state.optimizer.state.get(parameter)
        if moments:
            for moment in _MOMENTS:
                tensors[f"optimizer.{moment}.{name}"] = _copy(moments[moment])
    for name, buffer in state.model.named_buffers():
        tensors[f"weights.{name}"] = _copy(buffer)
    if state.average is not None:
        for name, value in state.average.state_dict().items():
            tensors[f"average.{name}"] = _copy(value)
    return tensors


def restore(state: TrainState, tensors: Mapping[str, Tensor]) -> None:
    """Overwrite a fresh state of the same spec; raises CheckpointError if it does not fit."""
    if int(_take(tensors, "version", ())) != STATE_VERSION:
        raise CheckpointError("the train state was written in another format; start the run anew")
    state.step = int(_take(tensors, "step", ()))
    state.stale = int(_take(tensors, "stale", ()))
    state.best, state.stopping_best = _take(tensors, "best", (2,)).tolist()
    sums = _take(tensors, "epoch_sums", (3,)).tolist()
    state.means = EpochMeans(int(_take(tensors, "epoch_rows", ())), *sums)
    with torch.no_grad():
        for name, parameter in state.model.named_parameters():
            parameter.copy_(_take(tensors, f"weights.{name}", parameter.shape))
            if state.step:
                _restore_moments(state, tensors, name, parameter)
        for name, buffer in state.model.named_buffers():
            buffer.copy_(_take(tensors, f"weights.{name}", buffer.shape))
        if state.average is not None:
            for name, value in state.average.state_dict().items():
                value.copy_(_take(tensors, f"average.{name}", value.shape))


def _restore_moments(
    state: TrainState, tensors: Mapping[str, Tensor], name: str, parameter: Tensor
) -> None:
    moments: dict[str, Tensor] = {
        # torch counts steps in float32, on the parameter's device where it is fused.
        "step": torch.tensor(float(state.step), dtype=torch.float32, device=parameter.device)
    }
    for moment in _MOMENTS:
        saved = _take(tensors, f"optimizer.{moment}.{name}", parameter.shape)
        moments[moment] = torch.empty_like(parameter).copy_(saved)
    state.optimizer.state[parameter] = moments


def _take(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    tensor = tensors.get(name)
    if tensor is None or tensor.shape != shape:
        raise CheckpointError(
            f"the train state does not fit the spec: {name} is missing or has another shape"
        )
    return tensor


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
