"""A refit as a stream of events: an encoder for each scale, its checkpoint, and the curve."""

import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping

import torch
from torch import Tensor

from workers.build import build_model
from workers.data import Dataset
from workers.device import device_of
from workers.errors import CheckpointError
from workers.events import Artifact, Checkpoint, Event, Finished, Metrics, Tick
from workers.quality import likelihood_measures
from workers.quality.curve import curve_png
from workers.quality.reference import Likelihood, Refit, likelihood
from workers.refit.standing_in import (
    DECODER,
    STATE_VERSION,
    resolve,
    scales,
    standing_in,
    total_steps,
)
from workers.spec import RefitSpec

TICK_S = 0.5
_ENCODER, _MOMENTS = "encoder.", ("exp_avg", "exp_avg_sq")


def train(
    spec: RefitSpec,
    data: Dataset,
    *,
    resume: Mapping[str, Tensor] | None,
    should_stop: Callable[[], bool],
) -> Iterator[Event]:
    """See ``workers.kinds.train``. Raises CheckpointError where there is no decoder to begin with.

    An encoder that was half fitted goes on bit for bit (on the CPU).
    """
    if resume is None:
        raise CheckpointError("refit_encoder begins from a checkpoint: fork a job that has one")
    yield from _Refitting(resolve(spec, data.info), data, resume).run(should_stop)


class _Refitting:
    """One run, and what it says about itself."""

    def __init__(self, spec: RefitSpec, data: Dataset, state: Mapping[str, Tensor]) -> None:
        if int(state["version"]) != STATE_VERSION:
            raise CheckpointError("the train state was written in another format; fork anew")
        self._spec, self._info, self._scales = spec, data.info, scales(spec)
        self._device = device_of(spec.resources)
        self._train = data.train.to(self._device)
        self._held_out = data.held_out.to(self._device)
        self._decoder = _below(state, DECODER)
        rows = min(spec.trainer.rows, len(data.held_out))
        self._found = [Likelihood.of(row, rows) for row in state["found"].tolist()]
        self._refit = self._at(len(self._found))
        if at := int(state["step"]) - len(self._found) * spec.trainer.steps:
            self._restore(state, at)
        self._checkpointed = -1
        self._spoke_at = time.monotonic()

    def _at(self, index: int) -> Refit:
        """The fit at a scale, before its first step; that of the last one where all are done."""
        trainer, seed = self._spec.trainer, self._spec.seed
        model = build_model(standing_in(self._spec), self._info, self._device)
        scale = self._scales[min(index, len(self._scales) - 1)]
        try:
            return Refit(model, self._decoder, trainer, scale, seed, self._train)
        except RuntimeError as error:
            raise CheckpointError("the decoder does not fit the network of the spec") from error

    @property
    def _step(self) -> int:
        done = len(self._found) * self._spec.trainer.steps
        return min(done + self._refit.step, total_steps(self._spec))

    @property
    def _epoch(self) -> float:
        return self._step / self._spec.trainer.steps

    def run(self, should_stop: Callable[[], bool]) -> Iterator[Event]:
        """See :func:`train`."""
        while len(self._found) < len(self._scales):
            is_done = yield from self._fit(should_stop)
            found = (yield from self._measure(should_stop)) if is_done else None
            if found is None:
                if self._checkpointed != self._step:
                    yield self._checkpoint({})
                message = "Interrupted; the run can go on from its last checkpoint."
                yield Finished(self._step, self._epoch, "interrupted", message)
                return
            yield from self._report(found)
        number = len(self._scales)
        message = f"Fitted an encoder and bounded the likelihood at {number} scales."
        yield Finished(self._step, self._epoch, "completed", message)

    def _fit(self, should_stop: Callable[[], bool]) -> Generator[Event, None, bool]:
        """The steps that are left at this scale; False where the run is to stop."""
        trainer = self._spec.trainer
        while self._refit.step < trainer.steps:
            if should_stop():
                return False
            terms = self._refit.advance()
            if self._step == 1:
                yield Tick(self._step, self._epoch)
            elif time.monotonic() - self._spoke_at > TICK_S:
                values = {"scale": self._scales[len(self._found)], "loss_nats": terms.loss.item()}
                yield Metrics(self._step, self._epoch, values)
                self._spoke_at = time.monotonic()
        return True

    def _measure(
        self, should_stop: Callable[[], bool]
    ) -> Generator[Event, None, Likelihood | None]:
        """The likelihood at this scale; None where the run is to stop."""
        scale = self._scales[len(self._found)]
        trainer, seed = self._spec.trainer, self._spec.seed
        work = likelihood(self._refit.model, trainer, scale, seed, self._held_out)
        while not should_stop():
            try:
                next(work)
            except StopIteration as end:
                found: Likelihood = end.value
                return found
            if time.monotonic() - self._spoke_at > TICK_S:
                yield Tick(self._step, self._epoch)
                self._spoke_at = time.monotonic()
        return None

    def _report(self, found: Likelihood) -> Iterator[Event]:
        """What is said of a scale that is done, and of all where it is the last one."""
        step, epoch, trainer = self._step, self._epoch, self._spec.trainer
        values = {n: m.value for n, m in likelihood_measures(found, trainer).items()}
        values |= {"scale": found.scale, "standard_error": found.standard_error}
        yield Metrics(step, epoch, values)
        fitted = self._refit
        self._found.append(found)
        self._refit = self._at(len(self._found))
        yield self._checkpoint(values, fitted)
        if len(self._found) == len(self._scales):
            content = json.dumps(self._curve(), indent=1).encode()
            name = "quality/reference_scales"
            yield Artifact(step, epoch, f"{name}.json", "application/json", content)
            png = curve_png(self._found, trainer)
            yield Artifact(step, epoch, f"{name}.png", "image/png", png)

    def _curve(self) -> dict[str, object]:
        measures = {}
        for found in self._found:
            for name, measure in likelihood_measures(found, self._spec.trainer).items():
                measures[name] = measure.model_dump()
        return {"measures": measures}

    def _checkpoint(self, metrics: Mapping[str, float], fitted: Refit | None = None) -> Checkpoint:
        """The model as it is, or the one that was fitted last; and what going on needs."""
        self._checkpointed = self._step
        weights = _copied((fitted or self._refit).model.state_dict())
        return Checkpoint(
            step=self._step,
            epoch=self._epoch,
            weights=weights,
            train_state=self._snapshot(),
            metrics=dict(metrics),
            is_best=False,
            is_named=False,
            replaces=fitted is not None,
        )

    def _snapshot(self) -> dict[str, Tensor]:
        rows = [found.row() for found in self._found]
        tensors = {
            "version": torch.tensor(STATE_VERSION),
            "step": torch.tensor(self._step),
            "found": torch.tensor(rows, dtype=torch.float64).reshape(-1, 5),
        }
        refit = self._refit
        if refit.step:
            tensors |= _copied(refit.model.encoder.state_dict(prefix=_ENCODER))
            for index, parameter in enumerate(refit.parameters):
                for moment in _MOMENTS:
                    tensors[f"{moment}.{index}"] = refit.optimizer.state[parameter][moment]
        decoder = {f"{DECODER}{name}": value for name, value in self._decoder.items()}
        return _copied(tensors | decoder)

    def _restore(self, state: Mapping[str, Tensor], at: int) -> None:
        """Go on with an encoder that was half fitted; raises CheckpointError."""
        refit = self._refit
        try:
            refit.model.encoder.load_state_dict(_below(state, _ENCODER))
            for index, parameter in enumerate(refit.parameters):
                moments = {m: state[f"{m}.{index}"].to(parameter.device) for m in _MOMENTS}
                step = torch.tensor(float(at), device=parameter.device)
                refit.optimizer.state[parameter] = {"step": step, **moments}
        except (RuntimeError, KeyError) as error:
            raise CheckpointError("the train state does not fit the spec") from error
        refit.step = at


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU that share nothing."""
    return {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }
