"""A full grid of noises, each trained to the end on several seeds, with its distance at each rung.

``python -m tests.bench.choice.recording OUT.jsonl`` adds what the file does not hold, so it may be
ended at any time. ``python -m tests.bench.choice OUT.jsonl`` replays studies over the file.
"""

import argparse
import itertools
import math
import multiprocessing
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from tests.bench.measured.material import Kept
from tests.bench.measured.running import result_of
from workers.build import build_model, resolve
from workers.data import Dataset, DatasetInfo
from workers.device import device_of
from workers.errors import Diverged
from workers.evaluate import Evaluation
from workers.events import Checkpoint
from workers.quality import Assessment, Shelf
from workers.spec import Quality, TrainSpec
from workers.train import train
from workers.train_state import restore, start

KINDS = ("gaussian", "laplace")
SCALES = (0.05, 0.08, 0.13, 0.2, 0.3, 0.45, 0.67, 1.0)
# Epochs, of which a rung is at each third: about 1800 and 2700 steps.
EPOCHS: Mapping[str, int] = {"mnist-10k": 36, "fashion-mnist": 9}
SEEDS: Mapping[str, int] = {"mnist-10k": 10, "fashion-mnist": 10}
SAMPLES = 5000
RUNGS = 3
SECOND = "efficientnet_lite0_40"


class Rung(BaseModel):
    """What a run was like after ``epoch`` epochs, and what it took since the rung before.

    ``train_s`` and ``evaluate_s`` are seconds; those of the second extractor, which may be there at
    the last rung, are not among them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: int
    metrics: dict[str, float]
    train_s: float
    evaluate_s: float


class Row(BaseModel):
    """One run: a noise, a seed, its rungs; ``failed`` says why there are fewer of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str
    kind: str
    scale: float
    seed: int
    rungs: tuple[Rung, ...]
    failed: str | None = None

    @property
    def key(self) -> tuple[str, str, float, int]:
        """Which run it was."""
        return self.data, self.kind, self.scale, self.seed


def rows_of(path: Path) -> list[Row]:
    """The rows of a file; a line that was cut short counts as none."""
    if not path.exists():
        return []
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    return [Row.model_validate_json(line) for line in whole.splitlines()]


def spec_of(name: str, kind: str, scale: float, seed: int, gpus: int = 0) -> TrainSpec:
    """The run's spec; half of the data are held out, so that 5000 samples have their like."""
    epochs = EPOCHS[name]
    trainer: dict[str, Any] = {
        "kind": "delta_vae",
        "spread": {"kind": kind, "scale": scale},
        "epochs": epochs,
        "evaluate_every_epochs": epochs,
        "grid_every_epochs": epochs,
    }
    return TrainSpec.model_validate(
        {
            "seed": seed,
            "resources": {"gpus_per_worker": gpus},
            "dataset": {"name": name, "held_out_fraction": 0.5},
            "trainer": trainer,
            "checkpoint_every_epochs": epochs // RUNGS,
        }
    )


class Recorder:
    """Runs one after another in a process of its own."""

    def __init__(self, kept: Kept, gpus: int = 0, *, has_second: bool = False) -> None:
        self._kept = kept
        self._gpus = gpus
        self._has_second = has_second
        self._shelf = Shelf(cache_dir=kept.cache)
        self._data: dict[str, Dataset] = {}
        self._second: dict[tuple[str, int], Assessment] = {}

    def record(self, name: str, kind: str, scale: float, seed: int) -> Row:
        """Train, and measure the samples at each rung."""
        if name not in self._data:
            self._data[name] = self._kept.named(name)
        data = self._data[name]
        spec = resolve(spec_of(name, kind, scale, seed, self._gpus), data.info)
        assert isinstance(spec, TrainSpec)
        rungs: list[Rung] = []
        failed = None
        try:
            for rung in self._rungs(spec, data):
                rungs.append(rung)
        except Diverged as error:
            failed = str(error)
        return Row(data=name, kind=kind, scale=scale, seed=seed, rungs=tuple(rungs), failed=failed)

    def _rungs(self, spec: TrainSpec, data: Dataset) -> Iterator[Rung]:
        device = device_of(spec.resources)
        rows, held_out = data.train.to(device), data.held_out.to(device)
        first = self._assessment(spec, data.info, rows, held_out, ())
        since = time.perf_counter()
        for event in train(spec, data):
            if not isinstance(event, Checkpoint):
                continue
            trained = time.perf_counter()
            state = start(spec, data.info, device)
            restore(state, event.train_state)
            seen = Evaluation(spec, rows, held_out).seen(event.epoch)
            metrics = result_of(first.run(state.shown, seen)).metrics()
            evaluated = time.perf_counter()
            if self._has_second and round(event.epoch) == spec.trainer.epochs:
                key = (data.info.name, spec.seed)
                if key not in self._second:
                    self._second.clear()
                    self._second[key] = self._assessment(spec, data.info, rows, held_out, (SECOND,))
                metrics |= result_of(self._second[key].run(state.shown, seen)).metrics()
            yield Rung(
                epoch=round(event.epoch),
                metrics=metrics,
                train_s=trained - since,
                evaluate_s=evaluated - trained,
            )
            since = time.perf_counter()

    def _assessment(
        self,
        spec: TrainSpec,
        info: DatasetInfo,
        rows: Tensor,
        held_out: Tensor,
        features: tuple[str, ...],
    ) -> Assessment:
        quality = Quality.model_validate({"samples": SAMPLES, "features": features})
        fresh = partial(build_model, spec, info, rows.device)
        return Assessment(quality, spec.seed, info.shape, rows, held_out, self._shelf, fresh)


def wanted(names: list[str]) -> Iterator[tuple[str, str, float, int]]:
    """All runs of the grid, seed by seed."""
    for name in names:
        for seed in range(SEEDS[name]):
            for kind, scale in itertools.product(KINDS, SCALES):
                yield name, kind, scale, seed


_recorders: list[Recorder] = []


def _begin(folder: Path, gpus: int, has_second: bool) -> None:
    torch.set_num_threads(1)
    _recorders.append(Recorder(Kept(folder), gpus, has_second=has_second))


def _record(run: tuple[str, str, float, int]) -> Row:
    return _recorders[0].record(*run)


def main() -> None:
    """Record what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="the file of JSON lines")
    parser.add_argument("--data", nargs="*", default=list(EPOCHS), choices=list(EPOCHS))
    parser.add_argument("--processes", type=int, default=1, help="runs at one time")
    parser.add_argument("--gpu", action="store_true", help="train on a GPU")
    parser.add_argument("--second", action="store_true", help=f"{SECOND} too, at the end")
    asked = parser.parse_args()
    rows = rows_of(asked.out)
    asked.out.write_text("".join(row.model_dump_json() + "\n" for row in rows))
    held = {row.key for row in rows}
    missing = [run for run in wanted(asked.data) if run not in held]
    context = multiprocessing.get_context("spawn")
    begin = (asked.out.with_suffix(".kept"), int(asked.gpu), asked.second)
    with ProcessPoolExecutor(asked.processes, context, _begin, begin) as pool:
        for done in as_completed([pool.submit(_record, run) for run in missing]):
            row = done.result()
            with asked.out.open("a") as file:
                file.write(row.model_dump_json() + "\n")
            last = row.rungs[-1].metrics.get("kid_pca", math.nan) if row.rungs else math.nan
            print(*row.key, f"KID {last:.4g}", row.failed or "", flush=True)


if __name__ == "__main__":
    main()
