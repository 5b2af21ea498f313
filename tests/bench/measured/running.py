"""One run as a job would do it: spec, model, training, quality of its last checkpoint."""

import time
from collections.abc import Generator, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from tests.bench.measured.material import Kept, overlap, ring_distance
from tests.bench.measured.record import Line
from tests.bench.measured.studies import BASE, TUNING_SEED, Run
from workers.build import build_model, spread_spec
from workers.checkpoint import decode_tensors, encode_train_state
from workers.data import Dataset
from workers.decoding import decode, draw_latents
from workers.device import device_of
from workers.errors import Diverged
from workers.evaluate import Evaluation
from workers.events import Checkpoint, Event, Finished, Metrics, Notice
from workers.kinds import taken_over
from workers.metrics import as_float
from workers.quality import Assessment, Report, Shelf
from workers.spec import Quality, TrainSpec
from workers.spread import spread_of
from workers.train import train
from workers.train_state import TrainState, restore, start

T = TypeVar("T")
RESIDUAL_ROWS = 1000


class Bench:
    """Runs of one study, whose data they share.

    The features of the reference are made once for each seed: samples are those that a job with
    ``quality`` draws, and the numbers are those that it reports.
    """

    def __init__(self, data: Dataset, kept: Kept) -> None:
        self._data = data
        self._kept = kept
        self._assessments: dict[tuple[int, Quality], Assessment] = {}

    def measure(self, run: Run) -> Line:
        """Train, and compare the samples; a run that diverges is measured too, as one that did."""
        begin = time.perf_counter()
        line = Line(
            study=run.study.name,
            arm=run.arm,
            seed=run.seed,
            scale=run.scale,
            spec=run.spec.digest(),
            begins_from=run.begins_from,
            data=self._data.info.digest,
            steps=0,
            metrics={},
            samples=0,
            reference_rows=0,
            reference="",
            extractors=(),
            seconds=0.0,
        )
        try:
            found = self._measured(run)
        except Diverged as error:
            found = {"failed": str(error)}
        return line.model_copy(update={**found, "seconds": time.perf_counter() - begin})

    def _measured(self, run: Run) -> dict[str, object]:
        state, metrics = self._trained(run)
        report = self._assess(run, state)
        if run.study.name == "toy":
            metrics |= self._of_the_toy(run, state)
        if state.psi is not None and state.psi.covariance is not None:
            metrics |= self._of_directions(run, state, state.psi.covariance.basis())
        spaces = {f"{m.space} v{m.version}": None for m in report.measures.values()}
        frechet = report.measures["frechet_pca"]
        return {
            "steps": state.step,
            "metrics": metrics | report.metrics(),
            "samples": frechet.samples,
            "reference_rows": frechet.reference,
            "reference": report.reference,
            "extractors": tuple(spaces),
        }

    def _of_the_toy(self, run: Run, state: TrainState) -> dict[str, float]:
        """What only the toy's known directions tell."""
        latents = draw_latents(run.study.samples, state.shown.latent_dim, run.seed)
        with state.shown.evaluating():
            samples = torch.from_numpy(decode(state.shown, latents))
        found = {"ring_sliced_wasserstein": ring_distance(samples, self._data.held_out)}
        if state.psi is not None and state.psi.covariance is not None:
            found["direction_overlap"] = overlap(state.psi.covariance.basis())
        return found

    def _of_directions(self, run: Run, state: TrainState, basis: Tensor) -> dict[str, float]:
        """How much of the residual is along Q (D, R), and how much of Q is where nothing changes.

        E‖Qᵀd₀‖²/R over E‖d₀‖²/D, d₀ = x − g(z), z ~ q(z|x + η), η the fixed noise:
        below 1 where Q has less residual than directions without any knowledge.
        """
        x = as_float(self._data.held_out[:RESIDUAL_ROWS].to(basis.device))
        generator = torch.Generator(x.device).manual_seed(run.seed)
        spread = spread_of(spread_spec(run.spec), x.device)
        noise = spread.sample_noise(tuple(x.shape), run.scale, generator)
        with torch.no_grad(), state.shown.evaluating():
            q = state.shown.encode(x + noise)
            draws = torch.empty_like(q.mean).normal_(generator=generator)
            d = x - state.shown.decode(q.sample(draws))
        along = float((d @ basis).square().mean() / d.square().mean())
        train = self._data.train.to(basis.device)
        is_still = train.amax(0) == train.amin(0)
        return {
            "residual_along_q": along,
            "still_dimensions": float(is_still.sum()),
            "still_share": float(basis[is_still].square().sum() / basis.shape[1]),
        }

    def _trained(self, run: Run) -> tuple[TrainState, dict[str, float]]:
        """The state after the last step, and what the run said of itself there."""
        resume = None
        if run.parent is not None:
            resume = taken_over(run.spec, "train_state", self._fork_point(run, run.parent))
        last: Checkpoint | None = None
        metrics: Mapping[str, float] = {}
        for event in self._events(run.spec, resume):
            match event:
                case Metrics(values=values):
                    metrics = values
                case Checkpoint():
                    last = event
                    self._keep(run, event)
                case Notice(message=message):
                    print(f"  {message}", flush=True)
                case Finished(reason=reason):
                    assert reason == "completed"
        assert last is not None
        state = start(run.spec, self._data.info, device_of(run.spec.resources))
        restore(state, last.train_state)
        return state, {name: metrics[name] for name in sorted(metrics) if _is_kept(name)}

    def _events(self, spec: TrainSpec, resume: Mapping[str, Tensor] | None) -> Iterator[Event]:
        return train(spec, self._data, resume=resume)

    def _assess(self, run: Run, state: TrainState) -> Report:
        device = device_of(run.spec.resources)
        rows, held_out = self._data.train.to(device), self._data.held_out.to(device)
        features = () if run.seed == TUNING_SEED else run.study.quality
        quality = Quality.model_validate({"samples": run.study.samples, "features": features})
        key = (run.seed, quality)
        if key not in self._assessments:
            self._assessments.clear()  # one seed at a time
            fresh = partial(build_model, run.spec, self._data.info, device)
            shelf = Shelf(cache_dir=self._kept.cache)
            self._assessments[key] = Assessment(
                quality, run.seed, self._data.info.shape, rows, held_out, shelf, fresh
            )
        seen = Evaluation(run.spec, rows, held_out, state.psi).seen(run.spec.trainer.epochs)
        return result_of(self._assessments[key].run(state.shown, seen))

    # --- where forks begin ---------------------------------------------------------------------

    def _fork_point(self, run: Run, parent: TrainSpec) -> dict[str, Tensor]:
        """The parent's train state; trained again, to the same bits, where it is not kept."""
        path = self._path(parent, run.study.size.forked_at)
        if not path.exists():
            for event in self._events(parent, None):
                if isinstance(event, Checkpoint):
                    self._write(event, path)
                    break
        return decode_tensors(path)

    def _keep(self, run: Run, event: Checkpoint) -> None:
        is_base = run.arm == BASE and run.scale == run.study.scale and run.study.has_forks
        if is_base and run.seed != TUNING_SEED and event.epoch == run.study.size.forked_at:
            self._write(event, self._path(run.spec, run.study.size.forked_at))

    def _path(self, spec: TrainSpec, epoch: int) -> Path:
        name = spec.digest().removeprefix("sha256:")
        return self._kept.folder / "train_states" / f"{name}-{epoch}.safetensors"

    def _write(self, event: Checkpoint, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(".incoming")
        encode_train_state(event, half)
        half.replace(path)


def _is_kept(name: str) -> bool:
    """What says something of the end of a run; not its pace."""
    wanted = ("held_out_", "data_total", "sample_total", "spread_gain", "information", "noise_ent")
    return name.startswith(wanted)


def result_of(work: Generator[None, None, T]) -> T:
    """The result of work that is done in pieces."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result
