"""What a run says at the end of an epoch: held-out metrics, quality, samples, a checkpoint.

Worker 0 alone reports, and the others wait for it. A stop that is asked meanwhile ends the report
before anything of it is said, and leaves the state as it was. What is measured draws from its own
generators by the seed, so the report has the same numbers when the run goes on and makes it whole.
"""

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import TypeVar

from workers.agreement import Agreement
from workers.attended import Stopped
from workers.build import build_model, checkpoint_epochs, grid_epochs, learned_spread
from workers.data import Dataset
from workers.decoding import decode, draw_latents
from workers.directions import directions_png
from workers.evaluate import Evaluation
from workers.events import Artifact, Checkpoint, Event, Grid, Metrics, Notice, Tick
from workers.images import render
from workers.improvement import Improvement
from workers.metrics import EpochMeans
from workers.parallel import Peers
from workers.quality import Assessment, Report, Shelf
from workers.spec import TrainSpec
from workers.step import Stepper
from workers.train_state import TrainState, snapshot, snapshot_weights

T = TypeVar("T")

TICK_S = 0.5
GRID_SAMPLES = 64
MIXING = 0.9  # of the limit of the information; below it the noise mixes up data

_MIXES_DATA = Notice(
    "noise_mixes_up_data",
    "information_nats is well below its limit: the noise mixes up data, and then the cross-entropy "
    "may prefer the wrong noise. Set learned_spread.ascend to kl, or choose a smaller scale.",
)


class Reporter:
    """Reports the epochs of one run; ``data`` are on the run's device.

    ``checkpointed_step`` is that of its last checkpoint, −1 before the first.
    """

    def __init__(
        self,
        spec: TrainSpec,
        data: Dataset,
        state: TrainState,
        stepper: Stepper,
        peers: Peers,
        shelf: Shelf,
    ) -> None:
        self._spec, self._trainer = spec, spec.trainer
        self._data, self._state, self._stepper = data, state, stepper
        self._rank = peers.rank
        self._agreement = Agreement(peers, data.train.device)
        self._evaluation = Evaluation(spec, data.train, data.held_out, state.psi)
        self._assessment = None
        if (quality := spec.trainer.quality) is not None and peers.rank == 0:
            train, held_out, shape = data.train, data.held_out, data.info.shape
            fresh = partial(build_model, spec, data.info, train.device)
            self._assessment = Assessment(quality, spec.seed, shape, train, held_out, shelf, fresh)
        self._improvement = Improvement(spec, state)
        self._checkpoint_epochs = checkpoint_epochs(spec)
        self._grid_epochs = grid_epochs(spec)
        self._has_warned = False
        self.checkpointed_step = -1
        self._spoke_at = time.monotonic()

    @property
    def is_exhausted(self) -> bool:
        """Whether early stopping ends the run."""
        return self._improvement.is_exhausted

    @property
    def _epoch(self) -> float:
        return self._state.model_step / self._stepper.steps_per_epoch

    def report(
        self, epoch: int, means: Mapping[str, float], should_stop: Callable[[], bool]
    ) -> Generator[Event, None, Mapping[str, float]]:
        """All that is said of an epoch with these means; returns its metrics.

        Of workers other than 0 these are Ticks until worker 0 is done, and the means again.
        Raises Stopped where any worker was asked to stop, with the epoch unreported; Diverged.
        """
        state = self._state
        if self._rank:
            state.stale = yield from self._waited(should_stop)
            state.means = EpochMeans()
            return means
        record = state.stopping_best, state.stale
        try:
            values, report = yield from self._found(epoch, means, should_stop)
        except Stopped:
            state.stopping_best, state.stale = record
            raise
        self._agreement.tell(state.stale)
        state.means = EpochMeans()
        yield from self._said(epoch, values, report)
        return values

    def checkpoint(
        self,
        metrics: Mapping[str, float],
        *,
        is_best: bool = False,
        is_named: bool = False,
        replaces: bool = False,
    ) -> Checkpoint:
        """The run as it stands; raises Diverged where its weights are no numbers."""
        state = self._state
        weights, train_state = snapshot_weights(state), snapshot(state)
        if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
            raise self._stepper.diverged(state.step, "the weights became infinite")
        self.checkpointed_step = state.step
        return Checkpoint(
            step=state.step,
            epoch=self._epoch,
            weights=weights,
            train_state=train_state,
            metrics=dict(metrics),
            is_best=is_best,
            is_named=is_named,
            replaces=replaces,
        )

    # --- what is measured: nothing of it is said before all of it is known ---------------------

    def _found(
        self, epoch: int, means: Mapping[str, float], should_stop: Callable[[], bool]
    ) -> Generator[Event, None, tuple[Mapping[str, float], Report | None]]:
        """The metrics of the epoch, and the report on the samples' quality where it is due."""
        values, shown = dict(means), self._state.shown
        if self._is_due(epoch) or epoch in self._checkpoint_epochs:
            work = self._evaluation.run(shown, epoch)
            values |= yield from self._attend(work, epoch, should_stop)
            self._check_finite(values)
        if self._is_due(epoch):
            self._improvement.note(values, epoch)
        if not self._is_assessed(epoch):
            return values, None
        assert self._assessment is not None
        measuring = self._assessment.run(shown, self._evaluation.seen(epoch))
        report = yield from self._attend(measuring, epoch, should_stop)
        return values | report.metrics(), report

    def _is_due(self, epoch: int) -> bool:
        return epoch % self._trainer.evaluate_every_epochs == 0

    def _is_assessed(self, epoch: int) -> bool:
        quality = self._trainer.quality
        if quality is None:
            return False
        is_end = self.is_exhausted or epoch == self._trainer.epochs
        return is_end or (quality.at == "checkpoints" and epoch in self._checkpoint_epochs)

    def _attend(
        self, work: Generator[None, None, T], epoch: int, should_stop: Callable[[], bool]
    ) -> Generator[Event, None, T]:
        """The result of work, with a Tick where it takes long; raises Stopped."""
        with closing(work):
            while True:
                try:
                    next(work)
                except StopIteration as end:
                    result: T = end.value
                    return result
                if time.monotonic() - self._spoke_at > TICK_S:
                    if self._agreement.is_stop_wished(should_stop()):
                        raise Stopped
                    yield Tick(self._state.step, epoch)
                    self._spoke_at = time.monotonic()

    def _waited(self, should_stop: Callable[[], bool]) -> Generator[Event, None, int]:
        """What worker 0 says when it is done, and a Tick with each of its own."""
        waiting = self._agreement.wait(should_stop)
        while True:
            try:
                next(waiting)
            except StopIteration as end:
                return int(end.value)
            yield Tick(self._state.step, self._epoch)

    def _check_finite(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                raise self._stepper.diverged(self._state.step, f"{name} became {value}")

    # --- what is said ------------------------------------------------------------------------

    def _said(
        self, epoch: int, values: Mapping[str, float], report: Report | None
    ) -> Iterator[Event]:
        step, is_last = self._state.step, self.is_exhausted
        if report is not None:  # all that belongs to the numbers
            content = report.model_dump_json(indent=1).encode()
            yield Artifact(step, epoch, f"quality/{step:08d}.json", "application/json", content)
        yield Metrics(step, epoch, values)
        yield from self._warn_of_mixing(values)
        if is_last or epoch in self._grid_epochs:
            yield Grid(step, epoch, self._grid())
            yield from self._directions(epoch)
        if is_last or epoch in self._checkpoint_epochs:
            yield self.checkpoint(
                values,
                is_best=self._improvement.is_best(values, epoch),
                is_named=epoch in self._spec.checkpoint_at_epochs,
                replaces=True,
            )

    def _grid(self) -> bytes:
        """Samples at the run's fixed latents, which are those of ``sample(64, seed)``."""
        model, info = self._state.shown, self._data.info
        latents = draw_latents(GRID_SAMPLES, model.latent_dim, self._spec.seed)
        with model.evaluating():
            samples = decode(model, latents).reshape(-1, *info.shape)
        return render(samples, info.is_image)

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
            basis, info = psi.covariance.basis(), self._data.info
            png = directions_png(basis, self._data.train, info.shape, is_image=info.is_image)
            step = self._state.step
            yield Artifact(step, epoch, f"directions/{step:08d}.png", "image/png", png)
