"""Trains the arms of the studies and writes down what their samples are like, run by run.

``python -m tests.bench.measured OUT.jsonl`` skips what the file holds, so it may be ended at any
time and started again. ``python -m tests.bench.measured.page OUT.jsonl`` prints the tables.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from tests.bench.measured.material import Kept
from tests.bench.measured.record import Record
from tests.bench.measured.running import Bench
from tests.bench.measured.studies import (
    CHOSEN_BY,
    FAMILIES,
    SCALES,
    TUNING_SEED,
    Study,
    digits,
    pictures,
    run_of,
    toy,
)
from workers.data import Dataset


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.measured", description=__doc__)
    parser.add_argument("out", type=Path, help="the file of JSON lines")
    parser.add_argument("--only", help="one arm, or one study")
    parser.add_argument("--seeds", type=int, default=5, help="paired seeds of every arm")
    parser.add_argument(
        "--data",
        nargs="*",
        default=["mnist-10k"],
        help="grey pictures by name: mnist-10k, mnist, fashion-mnist; they must be there",
    )
    parser.add_argument("--pictures", type=Path, help="colour pictures of one's own, to upload")
    return parser.parse_args()


def studies(asked: argparse.Namespace, kept: Kept) -> Iterator[tuple[Study, Dataset]]:
    """The studies that are asked for, each with its data, in their order."""
    for data in map(kept.named, asked.data):
        yield digits(data.info), data
    vectors = kept.toy()
    yield toy(vectors.info), vectors
    if asked.pictures is not None:
        data = kept.uploaded("pictures", asked.pictures)
        yield pictures(data.info), data


def order(study: Study, seeds: int) -> Iterator[tuple[str, int, float | None]]:
    """Arm, seed and scale of all runs, seed by seed, so that a broken-off file is of use.

    The best scales are chosen once the first seed has its other arms. A scale of None follows from
    other runs.
    """
    for seed in range(seeds):
        for arm, scale in study.arms:
            yield arm, seed, scale
        if not study.is_tuned:
            continue
        if seed == 0:
            for family in FAMILIES:
                for candidate in SCALES:
                    yield family, TUNING_SEED, candidate
        for family in FAMILIES:
            yield family, seed, None


def measure_missing(
    study: Study, data: Dataset, kept: Kept, record: Record, seeds: int, only: str | None = None
) -> None:
    """Measure what the file does not hold, and append it run by run."""
    bench = Bench(data, kept)
    for arm, seed, scale in order(study, seeds):
        if only not in (None, arm, study.name):
            continue
        run = run_of(study, data.info, arm, seed, scale, record.lines)
        if run is None:
            print(f"{study.name} {arm} seed {seed}: what its scale follows from is not measured")
            continue
        if record.holds(run.key):
            continue
        line = bench.measure(run)
        record.add(line)
        found = line.failed or f"KID {line.metrics[CHOSEN_BY]:.4g}"
        at, took = time.strftime("%H:%M:%S"), f"{line.seconds:.0f} s"
        print(f"{at} {study.name} {arm} σ {run.scale:.4g} seed {seed}: {found}, {took}", flush=True)


def main() -> None:
    """Measure what is missing."""
    asked = arguments()
    torch.set_num_threads(1)
    kept = Kept(asked.out.with_suffix(".kept"))
    record = Record(asked.out)
    for study, data in studies(asked, kept):
        measure_missing(study, data, kept, record, asked.seeds, asked.only)


if __name__ == "__main__":
    main()
