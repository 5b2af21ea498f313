"""Everything that a run carries from one step to the next, and its form as named tensors.

There is no state of a random number generator in it: what a step draws follows from the seed and
the step's number (see seeds.py).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from workers.build import build_model, fresh_psi
from workers.data import DatasetInfo
from workers.errors import CheckpointError
from workers.metrics import EpochMeans
from workers.networks import Autoencoder
from workers.networks.batch_norm import Reduce
from workers.optimize import Adam, build_optimizer
from workers.rounds import Position
from workers.spec import DeltaVae, TrainSpec
from workers.spread.learned import Psi

STATE_VERSION = 1

SPREAD = "spread."  # what the names of ψ's tensors begin with, in weights and train states
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(slots=True)
class TrainState:
    """A run between two steps.

    ``average`` holds the moving average of the weights where the spec asks for one. ``best`` and
    ``stopping_best`` are the lowest held-out costs so far, of all checkpoints and of all
    evaluations; ``stale`` counts evaluations without improvement. ``psi`` is what is learned of the
    spread; ``step`` counts all steps, of which ``noise_steps`` and ``encoder_steps`` were those of
    rounds, and ``round_left`` are left of the round that the run is in.
    """

    model: Autoencoder
    optimizer: Adam
    average: Autoencoder | None
    step: int = 0
    means: EpochMeans = field(default_factory=EpochMeans)
    best: float = math.inf
    stopping_best: float = math.inf
    stale: int = 0
    psi: Psi | None = None
    psi_optimizer: Adam | None = None
    noise_steps: int = 0
    encoder_steps: int = 0
    round_left: int = 0

    @property
    def model_step(self) -> int:
        """Steps of the whole model, in which epochs count."""
        return self.step - self.noise_steps - self.encoder_steps

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
    state = TrainState(model, build_optimizer(spec.trainer.optimizer, model.parameters()), average)
    state.psi = fresh_psi(spec, info.shape, device)
    if state.psi is not None and (parameters := list(state.psi.parameters())):
        assert isinstance(spec.trainer, DeltaVae)
        assert spec.trainer.learned_spread is not None
        rate = spec.trainer.learned_spread.learning_rate
        state.psi_optimizer = Adam(parameters, rate)
    return state


def snapshot_weights(state: TrainState) -> dict[str, Tensor]:
    """Copies of the weights that samples are drawn with, and of ψ, on the CPU."""
    weights = {name: _copy(tensor) for name, tensor in state.shown.state_dict().items()}
    return weights | _psi_tensors(state)


def _psi_tensors(state: TrainState) -> dict[str, Tensor]:
    tensors = {} if state.psi is None else state.psi.state_dict()
    return {f"{SPREAD}{name}": _copy(tensor) for name, tensor in tensors.items()}


def has_psi(tensors: Mapping[str, Tensor]) -> bool:
    """Whether weights or a train state hold what was learned of a spread."""
    return any(name.startswith(SPREAD) for name in tensors)


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
    for name in ("noise_steps", "encoder_steps", "round_left"):
        if state.psi is not None or getattr(state, name):
            tensors[name] = torch.tensor(getattr(state, name))
    tensors |= _psi_tensors(state)
    if state.psi is not None and state.psi_optimizer is not None:
        for name, parameter in state.psi.named_parameters():
            tensors |= _moments(state.psi_optimizer, parameter, f"{SPREAD}{name}")
    for name, parameter in state.model.named_parameters():
        tensors[f"weights.{name}"] = _copy(parameter)
        tensors |= _moments(state.optimizer, parameter, name)
    for name, buffer in state.model.named_buffers():
        tensors[f"weights.{name}"] = _copy(buffer)
    if state.average is not None:
        for name, value in state.average.state_dict().items():
            tensors[f"average.{name}"] = _copy(value)
    return tensors


def _moments(optimizer: Adam, parameter: Tensor, name: str) -> dict[str, Tensor]:
    moments = optimizer.state.get(parameter)
    if not moments:
        return {}
    return {f"optimizer.{moment}.{name}": _copy(moments[moment]) for moment in _MOMENTS}


def restore(state: TrainState, tensors: Mapping[str, Tensor]) -> None:
    """Overwrite a fresh state of the same spec; raises CheckpointError if it does not fit.

    A train state without ψ, that of a fixed spread, leaves ψ at its beginning.
    """
    if int(_take(tensors, "version", ())) != STATE_VERSION:
        raise CheckpointError("the train state was written in another format; start the run anew")
    position = Position.of(tensors)
    state.step = int(_take(tensors, "step", ()))
    state.noise_steps, state.encoder_steps = position.noise_steps, position.encoder_steps
    state.round_left = 0 if state.psi is None else position.round_left
    state.stale = int(_take(tensors, "stale", ()))
    state.best, state.stopping_best = _take(tensors, "best", (2,)).tolist()
    sums = _take(tensors, "epoch_sums", (3,)).tolist()
    state.means = EpochMeans(int(_take(tensors, "epoch_rows", ())), *sums)
    with torch.no_grad():
        for name, parameter in state.model.named_parameters():
            parameter.copy_(_take(tensors, f"weights.{name}", parameter.shape))
            is_encoder = name.startswith("encoder.")
            if count := state.model_step + is_encoder * state.encoder_steps:
                _restore_moments(state.optimizer, tensors, name, parameter, count)
        for name, buffer in state.model.named_buffers():
            buffer.copy_(_take(tensors, f"weights.{name}", buffer.shape))
        if state.average is not None:
            for name, value in state.average.state_dict().items():
                value.copy_(_take(tensors, f"average.{name}", value.shape))
    if state.psi is not None and has_psi(tensors):
        _restore_psi(state, state.psi, tensors)


@torch.no_grad()
def _restore_psi(state: TrainState, psi: Psi, tensors: Mapping[str, Tensor]) -> None:
    for name, value in psi.state_dict().items():
        value.copy_(_take(tensors, f"{SPREAD}{name}", value.shape))
    if state.psi_optimizer is not None and state.noise_steps:
        for name, parameter in psi.named_parameters():
            _restore_moments(
                state.psi_optimizer, tensors, f"{SPREAD}{name}", parameter, state.noise_steps
            )


def _restore_moments(
    optimizer: Adam,
    tensors: Mapping[str, Tensor],
    name: str,
    parameter: Tensor,
    count: int,
) -> None:
    moments: dict[str, Tensor] = {
        # torch counts steps in float32, on the parameter's device where it is fused.
        "step": torch.tensor(float(count), dtype=torch.float32, device=parameter.device)
    }
    for moment in _MOMENTS:
        saved = _take(tensors, f"optimizer.{moment}.{name}", parameter.shape)
        moments[moment] = torch.empty_like(parameter).copy_(saved)
    optimizer.state[parameter] = moments


def _take(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    tensor = tensors.get(name)
    if tensor is None or tensor.shape != shape:
        raise CheckpointError(
            f"the train state does not fit the spec: {name} is missing or has another shape"
        )
    return tensor


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
