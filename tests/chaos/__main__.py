"""``make chaos``: the whole kill matrix, several times over, and the table of what happened.

``python -m tests.chaos --repeats 2 --stages 2 --only own/attempt`` runs a part of it. The exit
status is 1 if anything was lost, false, orphaned or published twice, or if a full run hit too
seldom. ``--out`` adds every result to a file at once, and goes on with what a run that was broken
off has not done; ``--table FILE…`` only tells what files hold.
"""

import argparse
import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, zip_longest
from pathlib import Path

from tests.chaos import report
from tests.chaos.cells import MATRIX, Cell
from tests.chaos.stage import Stage, stage_of
from tests.chaos.strike import Result, strike
from tests.s3_servers import CREDENTIALS

Work = tuple[Cell, int]
SHARE = 24  # strikes on one stage


def run(work: Sequence[Work], out: Path | None) -> list[Result]:
    """Strike after strike on one stage; all cells are of one setting."""
    results = []
    with stage_of(work[0][0].setting) as stage:
        for cell, seed in work:
            began = time.monotonic()
            result = strike(stage, cell, seed)
            results.append(result)
            _say(result, time.monotonic() - began, stage)
            if out is not None:
                report.write(result, out)
    return results


def _say(result: Result, took_s: float, stage: Stage) -> None:
    recovery = "-" if result.recovery_s is None else f"{result.recovery_s:.1f} s"
    note = "nothing to hit" if result.missed else " ".join(str(r) for r in result.reasons)
    print(f"{result.cell} #{result.seed}: {result.ended}, {recovery}, {note} ({took_s:.0f} s)")
    for sentence in result.faults.sentences():
        print(f"    FAULT {sentence}")
    if result.faults:
        kept = Path(
            f"chaos-{str(result.cell).replace('/', '-').replace(' ', '')}-{result.seed}.log"
        )
        kept.write_bytes(stage.service.log.read_bytes()[-200_000:])
    sys.stdout.flush()


def divide(work: Iterable[Work]) -> list[list[Work]]:
    """Shares of the work, each of one setting and for a stage of its own, the settings in turn and
    the cells mixed: a run that is broken off has seen something of everything."""
    by_setting: dict[str, list[Work]] = defaultdict(list)
    for cell, seed in work:
        by_setting[cell.setting].append((cell, seed))
    shares = []
    for part in by_setting.values():
        random.Random(0).shuffle(part)
        shares.append([part[start : start + SHARE] for start in range(0, len(part), SHARE)])
    return [share for share in chain.from_iterable(zip_longest(*shares)) if share is not None]


def main() -> None:
    """Run the matrix and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--repeats", type=int, default=1, help="strikes for each cell")
    parser.add_argument("--stages", type=int, default=2, help="installations side by side")
    parser.add_argument("--only", nargs="*", default=[""], help="cells whose name contains one")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first repeat")
    parser.add_argument("--out", type=Path, default=None, help="add results to it, as JSON lines")
    parser.add_argument("--table", type=Path, nargs="+", help="only tabulate these files")
    chosen = parser.parse_args()
    if chosen.table:
        results = report.read(chosen.table)
    else:
        os.environ.update(CREDENTIALS)
        cells = [cell for cell in MATRIX if any(words in str(cell) for words in chosen.only)]
        work = [(cell, chosen.seed + turn) for turn in range(chosen.repeats) for cell in cells]
        before = report.read([chosen.out]) if chosen.out and chosen.out.exists() else []
        done = {(result.cell, result.seed) for result in before}
        work = [each for each in work if each not in done]
        print(f"{len(work)} strikes on {len(cells)} cells", flush=True)
        with ThreadPoolExecutor(chosen.stages) as pool:
            shares = pool.map(lambda share: run(share, chosen.out), divide(work))
            results = report.in_order(chain(before, *shares))
    print(report.table(results))
    print(report.summary(results))
    hits = sum(not result.missed for result in results)
    seldom = len(results) >= len(MATRIX) and hits < report.HITS_WANTED
    if seldom:
        print(f"only {hits} hits: at least {report.HITS_WANTED} are wanted")
    sys.exit(seldom or any(result.faults for result in results))


if __name__ == "__main__":
    main()
