"""One optimiser step: batch, noise, objective, gradient, update.

Order and noise are functions of (seed, epoch) and (seed, step), the same on every worker; each
takes its share of the rows, and the sum of the workers' gradients is that of the whole batch.
"""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from workers.build import spread_spec, steps_per_epoch
from workers.data import DatasetInfo
from workers.delta_vae import Terms, estimate_terms, objective_at
from workers.errors import Diverged, PeerLost
from workers.gradients import SharedGradients
from workers.metrics import as_float
from workers.optimize import clip_gradients, gradient_norm, learning_rate_at, move_average
from workers.parallel import Peers, Share
from workers.seeds import SeedStream
from workers.spec import TrainSpec
from workers.spread import scale_at, spread_of
from workers.train_state import TrainState

GRADIENT_NORM_EVERY = 20  # steps; measuring it at every step would cost a tenth of the time


class Stepper:
    """Moves a run's state by one step at a time; ``rows`` are the training split on its device.

    ``is_stop_agreed`` says after a step of several workers that one of them wants to stop.
    """

    def __init__(
        self, spec: TrainSpec, info: DatasetInfo, rows: Tensor, state: TrainState, peers: Peers
    ) -> None:
        self.steps_per_epoch = steps_per_epoch(spec, info)
        self.last_gradient_norm: Tensor | None = None
        self.is_stop_agreed = False
        self._trainer = spec.trainer
        self._rows = rows
        self._state = state
        self._parameters = list(state.model.parameters())
        self._buffers = list(state.model.buffers())
        self._average = list(state.average.parameters()) if state.average else []
        self._average_buffers = list(state.average.buffers()) if state.average else []
        self._peers = peers
        self._shared = SharedGradients(self._parameters, peers) if peers.size > 1 else None
        self._precision = _precision(spec, rows.device)
        self._spread_spec = spread_spec(spec)
        self._spread = spread_of(self._spread_spec, rows.device)
        self._generator = torch.Generator(rows.device)
        self._noise_seeds = SeedStream(spec.seed, "noise")
        self._order_seeds = SeedStream(spec.seed, "order")
        self._order = torch.empty(0, dtype=torch.int64)
        self._order_epoch = -1
        self._pending: list[tuple[int, Terms]] = []

    def advance(self, wants_stop: bool = False) -> int:
        """Take one step; returns the number of data in its batch.

        Raises Diverged, and PeerLost. ``wants_stop`` is told to the other workers.
        """
        state, optimizer = self._state, self._trainer.optimizer
        step, epoch = state.step, state.step / self.steps_per_epoch
        batch = self._batch(step)
        terms = self._backward(batch, step, epoch, wants_stop)
        norm = clip_gradients(self._parameters, optimizer.clip_norm)
        if step % GRADIENT_NORM_EVERY == 0:
            self.last_gradient_norm = gradient_norm(self._parameters) if norm is None else norm
        rate = learning_rate_at(optimizer, epoch, self._trainer.epochs)
        state.optimizer.param_groups[0]["lr"] = rate
        state.optimizer.step()
        if optimizer.ema_decay is not None:
            move_average(self._average, self._parameters, optimizer.ema_decay)
            for average, buffer in zip(self._average_buffers, self._buffers, strict=True):
                average.copy_(buffer)
        state.step = step + 1
        self._pending.append((len(batch), terms))
        if len(self._pending) >= GRADIENT_NORM_EVERY:
            self.flush()
        return len(batch)

    def flush(self) -> None:
        """Add the last steps' terms to the epoch's means; raises Diverged.

        They are read together, because reading waits for the device. An epoch must be flushed
        before the next one begins.
        """
        if not self._pending:
            return
        terms = [t for _, step in self._pending for t in (step.loss, step.reconstruction, step.kl)]
        values = torch.stack(terms).view(-1, 3).tolist()
        first = self._state.step - len(self._pending) + 1
        for index, (rows, _) in enumerate(self._pending):
            loss, reconstruction, kl = values[index]
            if not math.isfinite(loss):
                raise self.diverged(first + index, f"the loss became {loss}")
            self._state.means.add(rows, loss, reconstruction, kl)
        self._pending.clear()

    def diverged(self, step: int, what: str) -> Diverged:
        """The error that says what happened and what to try."""
        optimizer = self._trainer.optimizer
        advice = f"try a learning rate below {optimizer.learning_rate:g}"
        if optimizer.clip_norm is None:
            advice += ", or clip the gradient (optimizer.clip_norm, for example 100)"
        else:
            advice += f", or a clip_norm below {optimizer.clip_norm:g}"
        return Diverged(step, f"Training diverged: {what} at step {step}; {advice}.")

    def _backward(self, batch: Tensor, step: int, epoch: float, wants_stop: bool) -> Terms:
        """The gradient of the whole batch in the parameters; returns the batch's terms."""
        share = self._peers.share(len(batch))
        x = as_float(self._rows.index_select(0, share.of(batch)))
        if self._shared is None:
            terms = self._terms(x, share, step, epoch)
            self._state.optimizer.zero_grad()
            terms.loss.backward()
            return terms.detach()
        try:
            terms = self._terms(x, share, step, epoch)
            self._shared.clear()
            terms.loss.backward()
            terms, self.is_stop_agreed = self._shared.reduce(terms, wants_stop)
        except PeerLost:
            self.flush()  # a peer that is gone may have seen the numbers diverge before we did
            raise
        return terms

    def _terms(self, x: Tensor, share: Share, step: int, epoch: float) -> Terms:
        self._generator.manual_seed(self._noise_seeds.at(step))
        with self._precision:
            return estimate_terms(
                self._state.model,
                x,
                self._spread,
                scale_at(self._spread_spec, epoch),
                objective_at(self._trainer, epoch),
                self._generator,
                share,
            )

    def _batch(self, step: int) -> Tensor:
        """Row numbers of a step's batch, from the order of its epoch."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if self._order_epoch != epoch:
            generator = torch.Generator()
            generator.manual_seed(self._order_seeds.at(epoch))
            order = torch.randperm(len(self._rows), generator=generator)
            self._order, self._order_epoch = order.to(self._rows.device), epoch
        size = self._trainer.batch_size
        return self._order[index * size : (index + 1) * size]


def _precision(spec: TrainSpec, device: torch.device) -> AbstractContextManager[object]:
    """Runs the networks' products in the spec's precision.

    All other terms are elementwise in the float32 that encode() and decode() return, which
    autocast leaves alone.
    """
    if spec.trainer.precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
