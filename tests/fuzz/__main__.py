"""The long run: ``python -m tests.fuzz [--examples N] [--seed N] [operation ...]``.

Every operation is asked with N random requests (500) beside those of the document, and as many
chains of requests along its links; prints what was asked, and what is wrong.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch

from tests.fuzz.fuzzing import PHASES, fuzz
from tests.fuzz.report import Report
from tests.fuzz.service import fuzzed_service


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--phases", default=",".join(PHASES))
    parser.add_argument("operations", nargs="*", help="ids of operations; all without them")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{options.examples} examples an operation, seed {options.seed}", flush=True)
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        fuzzed_service(Path(folder)) as fuzzed,
    ):
        report = fuzz(
            fuzzed,
            max_examples=options.examples,
            seed=options.seed,
            phases=options.phases.split(","),
            only=options.operations,
            tell=lambda line: print(line, flush=True),
        )
    show(report, time.monotonic() - began)
    return 1 if report.problems else 0


def show(report: Report, seconds: float) -> None:
    print("\nanswers by status")
    for operation, statuses in sorted(report.statuses.items()):
        listed = "  ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
        print(f"  {operation:55} {listed}")
    for phase in PHASES:
        asked = {
            operation: n for (named, operation), n in report.requests.items() if named == phase
        }
        if asked:
            print(f"\n{phase}: {sum(asked.values())} requests to {len(asked)} operations")
    print(f"\n{report.chains} chains along the links")
    for problem in report.problems:
        print(f"\n{problem}")
    print(
        f"\n{report.requests.total()} requests in {seconds:.0f} s, "
        f"{report.disk_bytes / 1e6:.0f} MB on disk at most, {len(report.problems)} problems"
    )


if __name__ == "__main__":
    sys.exit(main())
