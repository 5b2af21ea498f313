"""The training loop: a spec and its data to a stream of events.

A run that is stopped anywhere and resumed from its train state ends with the same bits (on the
CPU) as one that was not stopped.

Several workers run this loop in step, each on its share of every batch. Rank 0 alone evaluates and
speaks; the others wait for it at the next collective, yield Ticks, and Finished at the end.
"""

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from workers.build import (
    build_model,
    checkpoint_epochs,
    grid_epochs,
    learned_spread,
    resolve,
    spread_spec,
)
from workers.data import Dataset
from workers.decoding import decode, draw_latents
from workers.device import device_of
from workers.directions import directions_png
from workers.evaluate import Evaluation
from workers.events import Artifact, Checkpoint, Event, Finished, Grid, Metrics, Notice, Tick
from workers.images import render
from workers.improvement import Improvement
from workers.metrics import EpochMeans, Pace
from workers.optimize import learning_rate_at
from workers.parallel import ALONE, Peers
from workers.quality import BARE, Assessment, Shelf
from workers.seeds import SeedStream
from workers.spec import DeltaVae, TrainSpec
from workers.spread import scale_at
from workers.step import Stepper
from workers.train_state import has_psi, restore, snapshot, snapshot_weights, start

T = TypeVar("T")

TICK_S = 0.5
METRICS_S = 1.0
GRID_SAMPLES = 64
MIXING = 0.9  # of the limit of the information; below it the noise mixes up data

_CLEAN_TARGET = Notice(
    "clean_target_is_biased",
    "estimator clean_target drops a term of the gradient: it is the denoising VAE's criterion, "
    "and its samples vary less than the data. Compare runs by held_out_elbo_nats, which is exact; "
    "estimator naive has no bias.",
)
_MIXES_DATA = Notice(
    "noise_mixes_up_data",
    "information_nats is well below its limit: the noise mixes up data, and then the cross-entropy "
    "may prefer the wrong noise. Set learned_spread.ascend to kl, or choose a smaller scale.",
)


def never() -> bool:
    """The stop that is never asked for."""
    return False


def train(
    spec: TrainSpec,
    data: Dataset,
    *,
    resume: Mapping[str, Tensor] | None = None,
    should_stop: Callable[[], bool] = never,
    until_epoch: int | None = None,
    peers: Peers = ALONE,
    shelf: Shelf = BARE,
) -> Iterator[Event]:
    """Train to the end, at least one event a second; ``resume`` is a checkpoint's train state.

    ``should_stop`` is asked before every step; when it is true, a Checkpoint and Finished follow,
    and so they do once ``until_epoch`` is over and reported.
    With several ``peers`` every one of them is given the same spec, data and train state; a stop
    asked of any of them ends all after the step. The caller closes the peers, also after an error.
    ``shelf`` has the weights of feature extractors. Raises SpecMismatch, CheckpointError for a
    train state of another spec, Diverged, ExtractorUnavailable, and PeerLost.
    """
    training = _Training(resolve(spec, data.info), data, resume, peers, shelf)
    yield from training.run(should_stop, until_epoch)


class _Training:
    """One run: its stepper, and what it says about itself."""

    def __init__(
        self,
        spec: TrainSpec,
        data: Dataset,
        resume: Mapping[str, Tensor] | None,
        peers: Peers,
        shelf: Shelf,
    ) -> None:
        device = device_of(spec.resources)
        self._device, self._peers = device, peers
        rows = data.train.to(device)
        self._spec, self._info, self._trainer = spec, data.info, spec.trainer
        self._state = start(spec, data.info, device, peers.all_reduce if peers.size > 1 else None)
        if resume is not None:
            restore(self._state, resume)
        if (psi := self._state.psi) is not None:
            is_fresh = resume is None or not has_psi(resume)
            psi.observe(rows, SeedStream(spec.seed, "spread data").at(0), is_fresh=is_fresh)
        self._rows = rows
        self._stepper = Stepper(spec, data.info, rows, self._state, peers)
        self._model_steps = self._stepper.steps_per_epoch * self._trainer.epochs
        self._evaluation = Evaluation(spec, rows, data.held_out.to(device), psi)
        self._assessment = None
        if (quality := self._trainer.quality) is not None and peers.rank == 0:
            held_out, shape = data.held_out.to(device), data.info.shape
            fresh = partial(build_model, spec, data.info, device)
            self._assessment = Assessment(quality, spec.seed, shape, rows, held_out, shelf, fresh)
        self._improvement = Improvement(spec, self._state)
        self._checkpoint_epochs = checkpoint_epochs(spec)
        self._grid_epochs = grid_epochs(spec)
        self._metrics: dict[str, float] = {}
        self._checkpointed_step = -1
        self._has_warned = False
        self._pace = Pace()
        self._spoke_at = self._metrics_at = time.monotonic()

    @property
    def _epoch(self) -> float:
        return self._state.model_step / self._stepper.steps_per_epoch

    def run(self, should_stop: Callable[[], bool], until_epoch: int | None) -> Iterator[Event]:
        """See :func:`train`."""
        if self._peers.rank == 0 and self._is_biased():
            yield _CLEAN_TARGET
        first = self._state.step + 1
        self._pace.go_on()
        while self._state.model_step < self._model_steps and not self._improvement.is_exhausted:
            wants_stop = should_stop()
            if (
                self._is_over(until_epoch)
                or self._stepper.is_stop_agreed
                or (wants_stop and self._peers.size == 1)
            ):
                yield from self._interrupted()
                return
            self._pace.add(self._stepper.advance(wants_stop))
            if self._state.step == first:
                yield from self._say(Tick(first, self._epoch))
            if self._stepper.is_epoch_over:
                yield from self._end_epoch()
            elif time.monotonic() - self._spoke_at > TICK_S:
                yield from self._say(self._interim())
        if self._improvement.is_exhausted:
            assert self._trainer.early_stopping is not None
            metric = self._trainer.early_stopping.metric
            message = f"held_out_{metric} did not improve in {self._state.stale} evaluations."
            yield Finished(self._state.step, self._epoch, "stopped_early", message)
        else:
            message = f"Trained for {self._trainer.epochs} epochs."
            yield Finished(self._state.step, self._epoch, "completed", message)

    def _is_biased(self) -> bool:
        return isinstance(self._trainer, DeltaVae) and self._trainer.estimator == "clean_target"

    def _is_over(self, epoch: int | None) -> bool:
        """Whether an epoch is over, and the round after it."""
        return epoch is not None and self._epoch >= epoch and not self._state.round_left

    def _interrupted(self) -> Iterator[Event]:
        self._stepper.flush()
        if self._peers.rank == 0 and self._checkpointed_step != self._state.step:
            metrics = self._metrics | self._state.means.values()
            yield self._checkpoint(metrics, is_best=False, is_named=False)
        message = "Interrupted; the run can go on from its last checkpoint."
        yield Finished(self._state.step, self._epoch, "interrupted", message)

    # --- at the end of an epoch --------------------------------------------------------------

    def _end_epoch(self) -> Iterator[Event]:
        self._stepper.flush()
        self._pace.pause()
        epoch = round(self._epoch)
        if self._peers.rank == 0:
            yield from self._report(epoch)
        else:
            self._agree(epoch)
            self._state.means = EpochMeans()
            yield Tick(self._state.step, epoch)
        self._metrics_at = self._spoke_at = time.monotonic()
        self._pace.go_on()

    def _report(self, epoch: int) -> Iterator[Event]:
        """What rank 0 says at the end of an epoch."""
        state = self._state
        values = self._measure()
        has_checkpoint = epoch in self._checkpoint_epochs
        if self._is_due(epoch) or has_checkpoint:
            values |= yield from self._attend(self._evaluation.run(state.shown, epoch))
            self._check_finite(values)
        if self._is_due(epoch):
            self._improvement.note(values, epoch)
        self._agree(epoch)
        state.means = EpochMeans()
        is_last = self._improvement.is_exhausted
        if self._is_assessed(epoch, is_last, has_checkpoint):
            values |= yield from self._assess(epoch)
        self._metrics = values
        yield Metrics(state.step, epoch, values)
        yield from self._warn_of_mixing(values)
        if is_last or epoch in self._grid_epochs:
            yield Grid(state.step, epoch, self._grid())
            yield from self._directions(epoch)
        if is_last or has_checkpoint:
            is_best = self._improvement.is_best(values, epoch)
            is_named = epoch in self._spec.checkpoint_at_epochs
            yield self._checkpoint(values, is_best=is_best, is_named=is_named)

    def _is_assessed(self, epoch: int, is_last: bool, has_checkpoint: bool) -> bool:
        quality = self._trainer.quality
        if quality is None:
            return False
        is_end = is_last or epoch == self._trainer.epochs
        return is_end or (quality.at == "checkpoints" and has_checkpoint)

    def _assess(self, epoch: int) -> Generator[Event, None, dict[str, float]]:
        """Measure the samples' quality; all that belongs to the numbers goes into a file."""
        assert self._assessment is not None
        seen = self._evaluation.seen(epoch)
        report = yield from self._attend(self._assessment.run(self._state.shown, seen))
        step, content = self._state.step, report.model_dump_json(indent=1).encode()
        yield Artifact(step, epoch, f"quality/{step:08d}.json", "application/json", content)
        return report.metrics()

    def _is_due(self, epoch: int) -> bool:
        return epoch % self._trainer.evaluate_every_epochs == 0

    def _agree(self, epoch: int) -> None:
        """Tell the other workers whether the run is exhausted, which rank 0 alone has seen."""
        if self._peers.size == 1 or self._trainer.early_stopping is None or not self._is_due(epoch):
            return
        stale = torch.tensor([float(self._state.stale if self._peers.rank == 0 else 0)])
        self._state.stale = int(self._peers.all_reduce(stale.to(self._device)).item())

    def _attend(self, work: Generator[None, None, T]) -> Generator[Event, None, T]:
        """The result of work, with a Tick where it takes long."""
        while True:
            try:
                next(work)
            except StopIteration as end:
                result: T = end.value
                return result
            if time.monotonic() - self._spoke_at > TICK_S:
                yield Tick(self._state.step, self._epoch)
                self._spoke_at = time.monotonic()

    def _check_finite(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                raise self._stepper.diverged(self._state.step, f"{name} became {value}")

    # --- what is said ------------------------------------------------------------------------

    def _say(self, event: Event) -> Iterator[Event]:
        """Yield an event; the time until the consumer asks for the next one is not training's."""
        self._pace.pause()
        yield event
        self._spoke_at = time.monotonic()
        self._pace.go_on()

    def _interim(self) -> Event:
        if self._peers.rank or time.monotonic() - self._metrics_at < METRICS_S:
            return Tick(self._state.step, self._epoch)
        self._stepper.flush()
        self._pace.pause()
        event = Metrics(self._state.step, self._epoch, self._measure())
        self._pace.go_on()
        self._metrics_at = time.monotonic()
        return event

    def _measure(self) -> dict[str, float]:
        """The means of the epoch so far and what stands beside them; while the pace is paused."""
        epoch = self._epoch
        values = self._state.means.values()
        values["scale"] = scale_at(spread_spec(self._spec), epoch)
        values["learning_rate"] = learning_rate_at(
            self._trainer.optimizer, epoch, self._trainer.epochs
        )
        if isinstance(self._trainer, DeltaVae) and self._trainer.warm_up_epochs:
            values["warm_up"] = float(epoch <= self._trainer.warm_up_epochs)
        if self._stepper.last_gradient_norm is not None:
            values["gradient_norm"] = self._stepper.last_gradient_norm.item()
        if (data_per_s := self._pace.take()) is not None:
            values["data_per_s"] = data_per_s
        return values

    def _grid(self) -> bytes:
        """Samples at the run's fixed latents, which are those of ``sample(64, seed)``."""
        model = self._state.shown
        latents = draw_latents(GRID_SAMPLES, model.latent_dim, self._spec.seed)
        with model.evaluating():
            samples = decode(model, latents).reshape(-1, *self._info.shape)
        return render(samples, self._info.is_image)

    def _warn_of_mixing(self, values: Mapping[str, float]) -> Iterator[Event]:
        """Say once where the cross-entropy is not the KL."""
        learned = learned_spread(self._spec)
        if learned is None or learned.ascend == "kl" or self._has_warned:
            return
        known = values.get("information_nats", math.inf)
        if known < MIXING * values.get("information_limit_nats", 0.0):
            self._has_warned = True
            yield _MIXES_DATA

    def _directions(self, epoch: int) -> Iterator[Event]:
        """The learned directions of the noise, where there are any."""
        psi = self._state.psi
        if psi is not None and psi.covariance is not None:
            basis, info = psi.covariance.basis(), self._info
            png = directions_png(basis, self._rows, info.shape, is_image=info.is_image)
            step = self._state.step
            yield Artifact(step, epoch, f"directions/{step:08d}.png", "image/png", png)

    def _checkpoint(
        self, metrics: Mapping[str, float], *, is_best: bool, is_named: bool
    ) -> Checkpoint:
        state = self._state
        weights, train_state = snapshot_weights(state), snapshot(state)
        if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
            raise self._stepper.diverged(state.step, "the weights became infinite")
        self._checkpointed_step = state.step
        return Checkpoint(
            step=state.step,
            epoch=self._epoch,
            weights=weights,
            train_state=train_state,
            metrics=dict(metrics),
            is_best=is_best,
            is_named=is_named,
        )
