"""One optimiser step: batch, noise, objective, gradient, update.

Order and noise are functions of (seed, epoch) and (seed, step).
"""

import math

import torch
from torch import Tensor

from workers.build import spread_spec, steps_per_epoch
from workers.data import DatasetInfo
from workers.delta_vae import Terms, estimate_terms, objective_at
from workers.errors import Diverged
from workers.metrics import as_float
from workers.optimize import clip_gradients, gradient_norm, learning_rate_at, move_average
from workers.seeds import SeedStream
from workers.spec import TrainSpec
from workers.spread import scale_at, spread_of
from workers.train_state import TrainState

GRADIENT_NORM_EVERY = 20  # steps; measuring it at every step would cost a tenth of the time


class Stepper:
    """Moves a run's state by one step at a time; ``rows`` are the training split on its device."""

    def __init__(self, spec: TrainSpec, info: DatasetInfo, rows: Tensor, state: TrainState) -> None:
        self.steps_per_epoch = steps_per_epoch(spec, info)
        self.last_gradient_norm: Tensor | None = None
        self._trainer = spec.trainer
        self._rows = rows
        self._state = state
        self._parameters = list(state.model.parameters())
        self._average = list(state.average.parameters()) if state.average else []
        self._spread_spec = spread_spec(spec)
        self._spread = spread_of(self._spread_spec)
        self._generator = torch.Generator(rows.device)
        self._noise_seeds = SeedStream(spec.seed, "noise")
        self._order_seeds = SeedStream(spec.seed, "order")
        self._order = torch.empty(0, dtype=torch.int64)
        self._order_epoch = -1
        self._pending: list[tuple[int, Terms]] = []

    def advance(self) -> int:
        """Take one step; returns the number of data in its batch. Raises Diverged."""
        state, optimizer = self._state, self._trainer.optimizer
        step, epoch = state.step, state.step / self.steps_per_epoch
        x = as_float(self._rows.index_select(0, self._batch(step)))
        terms = self._terms(x, step, epoch)
        state.optimizer.zero_grad()
        terms.loss.backward()
        norm = clip_gradients(self._parameters, optimizer.clip_norm)
        if step % GRADIENT_NORM_EVERY == 0:
            self.last_gradient_norm = gradient_norm(self._parameters) if norm is None else norm
        rate = learning_rate_at(optimizer, epoch, self._trainer.epochs)
        state.optimizer.param_groups[0]["lr"] = rate
        state.optimizer.step()
        if optimizer.ema_decay is not None:
            move_average(self._average, self._parameters, optimizer.ema_decay)
        state.step = step + 1
        self._pending.append((len(x), terms.detach()))
        if len(self._pending) >= GRADIENT_NORM_EVERY:
            self.flush()
        return len(x)

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

    def _terms(self, x: Tensor, step: int, epoch: float) -> Terms:
        self._generator.manual_seed(self._noise_seeds.at(step))
        return estimate_terms(
            self._state.model,
            x,
            self._spread,
            scale_at(self._spread_spec, epoch),
            objective_at(self._trainer, epoch),
            self._generator,
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
