"""One optimiser step: batch, noise, objective, gradient, update.

Order and noise are functions of (seed, epoch) and (seed, step), the same on every worker; each
takes its share of the rows, and the sum of the workers' gradients is that of the whole batch.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

from workers.build import run_spread, spread_spec, steps_per_epoch
from workers.data import DatasetInfo
from workers.delta_vae import Terms, estimate_terms, objective_at
from workers.errors import Diverged, PeerLost
from workers.gradients import SharedGradients
from workers.metrics import as_float
from workers.noise_round import NoiseLearner
from workers.optimize import clip_gradients, gradient_norm, learning_rate_at, move_average
from workers.order import Order
from workers.parallel import Peers, Share
from workers.rounds import Rounds
from workers.seeds import SeedStream
from workers.spec import DeltaVae, TrainSpec
from workers.spread import scale_at
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
        self._still: list[torch.nn.Parameter] = []
        self._shared = SharedGradients(self._parameters, peers) if peers.size > 1 else None
        self._precision = _precision(spec, rows.device)
        self._spread_spec = spread_spec(spec)
        self._spread = run_spread(spec, state.psi, rows.device)
        self._generator = torch.Generator(rows.device)
        self._noise_seeds = SeedStream(spec.seed, "noise")
        size = spec.trainer.batch_size
        self._order = Order(SeedStream(spec.seed, "order"), len(rows), size, rows.device)
        self._rounds = Rounds.of(spec.trainer)
        self._round_order = Order(
            SeedStream(spec.seed, "order in rounds"), len(rows), size, rows.device
        )
        self._learner: NoiseLearner | None = None
        if isinstance(spec.trainer, DeltaVae) and state.psi is not None:
            self._learner = NoiseLearner(
                spec.trainer, state, rows, self._spread, peers, self._precision
            )
        self._pending: list[tuple[int, Terms]] = []

    def advance(self, wants_stop: bool = False) -> int:
        """Take one step; returns the number of data in its batch.

        Raises Diverged, and PeerLost. ``wants_stop`` is told to the other workers.
        """
        if self._state.round_left:
            return self._advance_round(wants_stop)
        state, epoch = self._state, self._state.model_step / self.steps_per_epoch
        batch = self._order.batch(state.model_step)
        terms = self._update(batch, epoch, wants_stop)
        state.step += 1
        self._begin_round()
        self._pending.append((len(batch), terms))
        if len(self._pending) >= GRADIENT_NORM_EVERY:
            self.flush()
        return len(batch)

    @property
    def is_epoch_over(self) -> bool:
        """Whether an epoch has had its last step, and the round after it is over."""
        return not self._state.round_left and self._state.model_step % self.steps_per_epoch == 0

    @property
    def is_report_due(self) -> bool:
        """Whether an epoch is over, and its means are not reported yet."""
        return self.is_epoch_over and bool(self._pending or self._state.means.rows)

    def _begin_round(self) -> None:
        """Where an epoch has had its last step, and a round is due after it."""
        state, rounds = self._state, self._rounds
        if rounds is None or not self.is_epoch_over:
            return
        if rounds.is_due(state.model_step // self.steps_per_epoch):
            state.round_left = rounds.length

    def _advance_round(self, wants_stop: bool) -> int:
        """A step of a round: of the noise, or of the encoder alone."""
        state = self._state
        assert self._rounds is not None
        assert self._learner is not None
        self.flush()  # what is pending belongs to the epoch
        epoch = state.model_step / self.steps_per_epoch
        batch = self._round_order.batch(state.noise_steps + state.encoder_steps)
        if self._rounds.is_noise(state.round_left):
            self._generator.manual_seed(self._noise_seeds.at(state.step))
            scale = scale_at(self._spread_spec, epoch)
            terms, self.is_stop_agreed = self._learner.advance(
                batch, scale, self._generator, wants_stop
            )
            state.noise_steps += 1
        else:
            with self._decoder_still():
                terms = self._update(batch, epoch, wants_stop)
            state.encoder_steps += 1
        state.step += 1
        state.round_left -= 1
        is_looked_at = not state.round_left or state.step % GRADIENT_NORM_EVERY == 0
        if is_looked_at and not math.isfinite(terms.loss.item()):
            what = f"the loss became {terms.loss.item()} while the spread was learned,"
            raise self.diverged(state.step, what)
        return len(batch)

    @contextmanager
    def _decoder_still(self) -> Iterator[None]:
        """In the block an update leaves the decoder, and Adam's moments of it, as they are."""
        decoder = self._state.model.decoder
        decoder.requires_grad_(requires_grad=False).eval()
        self._still = list(decoder.parameters())
        try:
            yield
        finally:
            decoder.requires_grad_(requires_grad=True).train()
            self._still = []

    def _update(self, batch: Tensor, epoch: float, wants_stop: bool) -> Terms:
        """One step of the optimiser of the networks; returns the batch's terms."""
        state, optimizer, step = self._state, self._trainer.optimizer, self._state.step
        terms = self._backward(batch, step, epoch, wants_stop)
        norm = clip_gradients(self._parameters, optimizer.clip_norm)
        if step % GRADIENT_NORM_EVERY == 0:
            self.last_gradient_norm = gradient_norm(self._parameters) if norm is None else norm
        rate = learning_rate_at(optimizer, epoch, self._trainer.epochs)
        state.optimizer.learning_rate = rate
        gradients = [parameter.grad for parameter in self._still]
        for parameter in self._still:
            parameter.grad = None  # which Adam passes over
        state.optimizer.step()
        for parameter, gradient in zip(self._still, gradients, strict=True):
            parameter.grad = gradient
        if optimizer.ema_decay is not None:
            move_average(self._average, self._parameters, optimizer.ema_decay)
            for average, buffer in zip(self._average_buffers, self._buffers, strict=True):
                average.copy_(buffer)
        return terms

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


def _precision(spec: TrainSpec, device: torch.device) -> AbstractContextManager[object]:
    """Runs the networks' products in the spec's precision.

    All other terms are elementwise in the float32 that encode() and decode() return, which
    autocast leaves alone.
    """
    if spec.trainer.precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
