"""Trains the arms of the studies and writes down what their samples are like, run by run.

``python -m tests.bench.measured OUT.jsonl`` skips what the file holds, so it may be ended at any
time and started again. ``python -m tests.bench.measured.page OUT.jsonl`` prints the tables.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.measured.material import Kept
from tests.bench.measured.order import order
from tests.bench.measured.record import Line, Record
from tests.bench.measured.studies import CHOSEN_BY, Run, Study, digits, pictures, run_of, toy
from tests.bench.measured.together import measure_together
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
    parser.add_argument(
        "--gpu", action="store_true", help="train pictures on a GPU, colour ones longer"
    )
    parser.add_argument("--processes", type=int, default=1, help="runs at one time")
    return parser.parse_args()


def studies(asked: argparse.Namespace, kept: Kept) -> Iterator[tuple[Study, Dataset]]:
    """The studies that are asked for, each with its data, in their order."""
    for data in map(kept.named, asked.data):
        yield digits(data.info, on_gpu=asked.gpu), data
    vectors = kept.toy()
    yield toy(vectors.info), vectors
    if asked.pictures is not None:
        data = kept.uploaded("pictures", asked.pictures)
        yield pictures(data.info, on_gpu=asked.gpu), data


def tell(run: Run, line: Line) -> None:
    """Print what came of a run."""
    found = line.failed or f"KID {line.metrics[CHOSEN_BY]:.4g}"
    at, took = time.strftime("%H:%M:%S"), f"{line.seconds:.0f} s"
    what = f"{line.study} {line.arm} σ {run.scale:.4g} seed {line.seed}"
    print(f"{at} {what}: {found}, {took}", flush=True)


def main() -> None:
    """Measure what is missing."""
    asked = arguments()
    kept = Kept(asked.out.with_suffix(".kept"))
    record = Record(asked.out)
    wanted = list(studies(asked, kept))
    for run, line in measure_together(
        wanted, kept, record, asked.seeds, asked.only, asked.processes
    ):
        tell(run, line)
    for study, data in wanted:
        for arm, seed, scale in order(study, asked.seeds):
            missing = run_of(study, data.info, arm, seed, scale, record.lines) is None
            if missing and asked.only in (None, arm, study.name):
                print(f"{study.name} {arm} seed {seed}: what its scale follows from is missing")


if __name__ == "__main__":
    main()
