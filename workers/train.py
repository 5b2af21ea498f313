"""The training loop: a spec and its data to a stream of events.

A run that is stopped anywhere and resumed from its train state ends with the same bits (on the
CPU) as one that was not stopped.

Several workers run this loop in step, each on its share of every batch. Rank 0 alone evaluates and
speaks; the others wait for it, yield Ticks, and Finished at the end.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from workers.attended import Stopped
from workers.build import resolve, spread_spec
from workers.data import Dataset
from workers.device import device_of
from workers.errors import SpecMismatch
from workers.events import Event, Finished, Metrics, Notice, Tick
from workers.metrics import Pace
from workers.optimize import learning_rate_at
from workers.parallel import ALONE, Peers
from workers.quality import BARE, Shelf
from workers.reporting import Reporter
from workers.seeds import SeedStream
from workers.spec import DeltaVae, TrainSpec
from workers.spread import scale_at
from workers.spread.learned import Psi
from workers.step import Stepper
from workers.train_state import has_psi, restore, start

TICK_S = 0.5
METRICS_S = 1.0
# The square of a gradient's norm has fourth powers of the data, for which float32 has no room at
# some ten times this.
REACH = 1e9

_CLEAN_TARGET = Notice(
    "clean_target_is_biased",
    "estimator clean_target drops a term of the gradient: it is the denoising VAE's criterion, "
    "and its samples vary less than the data. Compare runs by held_out_elbo_nats, which is exact; "
    "estimator naive has no bias.",
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

    ``should_stop`` is asked before every step, and again and again while an epoch is evaluated;
    when it is true, a Checkpoint and Finished follow, and so they do once ``until_epoch`` is over
    and reported. An epoch whose evaluation was cut short is reported when the run goes on.
    With several ``peers`` every one of them is given the same spec, data and train state; a stop
    asked of any of them ends all after the step. The caller closes the peers, also after an error.
    ``shelf`` has the weights of feature extractors. Raises SpecMismatch, CheckpointError for a
    train state of another spec, Diverged, ExtractorUnavailable, and PeerLost.
    """
    training = _Training(resolve(spec, data.info), data, resume, peers, shelf)
    del resume  # the state is a copy, and what it was read from may be a large file
    yield from training.run(should_stop, until_epoch)


class _Training:
    """One run: its stepper, and what it says between two reports."""

    def __init__(
        self,
        spec: TrainSpec,
        data: Dataset,
        resume: Mapping[str, Tensor] | None,
        peers: Peers,
        shelf: Shelf,
    ) -> None:
        device = device_of(spec.resources)
        self._peers = peers
        rows, held_out = data.train.to(device), data.held_out.to(device)
        data = replace(data, train=rows, held_out=held_out)
        _require_range(data)
        self._spec, self._trainer = spec, spec.trainer
        self._state = start(spec, data.info, device, peers.all_reduce if peers.size > 1 else None)
        if resume is not None:
            restore(self._state, resume)
        if (psi := self._state.psi) is not None:
            is_fresh = resume is None or not has_psi(resume)
            psi.observe(rows, SeedStream(spec.seed, "spread data").at(0), is_fresh=is_fresh)
            _require_gain(psi)
        self._stepper = Stepper(spec, data.info, rows, self._state, peers)
        self._model_steps = self._stepper.steps_per_epoch * self._trainer.epochs
        self._reporter = Reporter(spec, data, self._state, self._stepper, peers, shelf)
        self._metrics: Mapping[str, float] = {}
        self._reported_step = -1
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
        while True:
            if self._stepper.is_report_due:  # also of an epoch that was over when the run stopped
                try:
                    yield from self._report(should_stop)
                except Stopped:
                    break
            if self._reporter.is_exhausted or self._state.model_step >= self._model_steps:
                yield self._completed()
                return
            if self._is_over(until_epoch):
                yield from self._interrupted("at_rung")
                return
            wants_stop = should_stop()
            if self._stepper.is_stop_agreed or (wants_stop and self._peers.size == 1):
                break
            self._pace.add(self._stepper.advance(wants_stop))
            if self._state.step == first:
                yield from self._say(Tick(first, self._epoch))
            if not self._stepper.is_report_due and time.monotonic() - self._spoke_at > TICK_S:
                yield from self._say(self._interim())
        yield from self._interrupted("interrupted")

    def _is_biased(self) -> bool:
        return isinstance(self._trainer, DeltaVae) and self._trainer.estimator == "clean_target"

    def _is_over(self, epoch: int | None) -> bool:
        """Whether an epoch is over and reported, and the round after it."""
        return epoch is not None and self._epoch >= epoch and not self._state.round_left

    def _completed(self) -> Finished:
        if self._reporter.is_exhausted:
            assert self._trainer.early_stopping is not None
            metric = self._trainer.early_stopping.metric
            message = f"held_out_{metric} did not improve in {self._state.stale} evaluations."
            return Finished(self._state.step, self._epoch, "stopped_early", message)
        message = f"Trained for {self._trainer.epochs} epochs."
        return Finished(self._state.step, self._epoch, "completed", message)

    def _interrupted(self, reason: Literal["interrupted", "at_rung"]) -> Iterator[Event]:
        self._stepper.flush()
        if self._peers.rank == 0 and self._reporter.checkpointed_step != self._state.step:
            metrics = {**self._metrics, **self._state.means.values()}
            # Where the state says that a report is due, and it was made since, another is stored.
            replaces = self._reported_step == self._state.step
            yield self._reporter.checkpoint(metrics, replaces=replaces)
        message = "Interrupted; the run can go on from its last checkpoint."
        yield Finished(self._state.step, self._epoch, reason, message)

    def _report(self, should_stop: Callable[[], bool]) -> Iterator[Event]:
        """What is said of the epoch that is over; raises Stopped."""
        self._stepper.flush()
        self._pace.pause()

        def is_stop_asked() -> bool:
            return should_stop() or self._stepper.is_stop_agreed

        events = self._reporter.report(round(self._epoch), self._measure(), is_stop_asked)
        self._metrics = yield from events
        self._reported_step = self._state.step
        self._metrics_at = self._spoke_at = time.monotonic()
        self._pace.go_on()

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


def _require_range(data: Dataset) -> None:
    """Raise SpecMismatch where vectors have values that nothing can be trained on in float32."""
    if data.info.is_image:
        return
    ends = [end for rows in (data.train, data.held_out) for end in torch.aminmax(rows)]
    if (most := max(abs(end.item()) for end in ends)) > REACH:
        raise SpecMismatch(
            "/dataset",
            f"the values of {data.info.name} reach {most:.2g}, and training in float32 needs them "
            f"below {REACH:g}; standardise the columns",
        )


def _require_gain(psi: Psi) -> None:
    """Raise SpecMismatch where a gain is to be measured on data that are all the same."""
    if (gain := psi.mean_gain()) is not None and not math.isfinite(gain):
        raise SpecMismatch(
            "/trainer/learned_spread/mean_transform",
            "the data do not vary, so that a transform of them has no gain; choose other data, or "
            "leave it out",
        )
