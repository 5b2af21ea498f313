"""``make chaos``: the whole kill matrix, several times over, and the table of what happened.

``python -m tests.chaos --repeats 2 --stages 2 --only own/attempt`` runs a part of it. The exit
status is 1 if anything was lost, false, orphaned or published twice.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.chaos.cells import MATRIX, Cell
from tests.chaos.stage import Stage, stage_of
from tests.chaos.strike import Result, strike
from tests.s3_servers import CREDENTIALS

Work = tuple[Cell, int]


def run(work: Sequence[Work]) -> list[Result]:
    """Strike after strike on one stage; all cells are of one setting."""
    results = []
    with stage_of(work[0][0].setting) as stage:
        for cell, seed in work:
            began = time.monotonic()
            result = strike(stage, cell, seed)
            results.append(result)
            _say(result, time.monotonic() - began, stage)
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


def divide(work: Iterable[Work], stages: int) -> list[list[Work]]:
    """Shares of the work, each of one setting and each for a stage of its own."""
    by_setting: dict[str, list[Work]] = defaultdict(list)
    for cell, seed in work:
        by_setting[cell.setting].append((cell, seed))
    total = sum(len(part) for part in by_setting.values())
    shares = []
    for part in by_setting.values():
        count = max(1, round(stages * len(part) / total))
        shares += [part[start::count] for start in range(count)]
    return sorted(shares, key=len, reverse=True)


def table(results: Sequence[Result]) -> str:
    """The matrix in Markdown: one row for a victim, an action and a phase, over all settings."""
    rows = [
        "| setting | victim | action | phase | hits | lost | false | two at once | orphans "
        "| recomputed steps | recovery, median and most |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    by_cell: dict[Cell, list[Result]] = defaultdict(list)
    for result in results:
        by_cell[result.cell].append(result)
    for cell, runs in by_cell.items():
        hits = [result for result in runs if not result.missed]
        counts = [
            sum(len(getattr(result.faults, kind)) for result in hits)
            for kind in ("lost", "false_states", "two_at_once", "orphans")
        ]
        recoveries = [result.recovery_s for result in hits if result.recovery_s is not None]
        recovery = (
            f"{statistics.median(recoveries):.1f} s, {max(recoveries):.1f} s" if recoveries else "–"
        )
        most = max((result.recomputed_steps for result in hits), default=0)
        cells = [cell.setting, cell.victim, cell.action, cell.phase, len(hits), *counts, most]
        rows.append("| " + " | ".join(str(value) for value in (*cells, recovery)) + " |")
    return "\n".join(rows)


def summary(results: Sequence[Result]) -> str:
    """The figures of the bar, in one line."""
    hits = [result for result in results if not result.missed]
    parts = [f"{len(hits)} hits, {len(results) - len(hits)} times nothing to hit"]
    for kind in ("lost", "false_states", "two_at_once", "orphans", "recomputed"):
        count = sum(len(getattr(result.faults, kind)) for result in hits)
        parts.append(f"{kind.replace('_', ' ')} {count}")
    recoveries = sorted(r.recovery_s for r in hits if r.recovery_s is not None)
    if recoveries:
        parts.append(
            f"recovery median {statistics.median(recoveries):.1f} s, most {recoveries[-1]:.1f} s"
        )
    return "; ".join(parts)


def main() -> None:
    """Run the matrix and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--repeats", type=int, default=2, help="strikes for each cell")
    parser.add_argument("--stages", type=int, default=2, help="installations side by side")
    parser.add_argument("--only", default="", help="cells whose name begins so, or contains it")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first repeat")
    parser.add_argument("--out", type=Path, default=None, help="also write the results as JSON")
    chosen = parser.parse_args()
    os.environ.update(CREDENTIALS)
    cells = [cell for cell in MATRIX if chosen.only in str(cell)]
    work = [(cell, chosen.seed + turn) for turn in range(chosen.repeats) for cell in cells]
    print(f"{len(work)} strikes on {len(cells)} cells")
    with ThreadPoolExecutor(chosen.stages) as pool:
        results = [
            result for share in pool.map(run, divide(work, chosen.stages)) for result in share
        ]
    results.sort(key=lambda result: (MATRIX.index(result.cell), result.seed))
    print(table(results))
    print(summary(results))
    if chosen.out is not None:
        rows = [{**vars(r), "cell": str(r.cell), "faults": vars(r.faults)} for r in results]
        chosen.out.write_text(json.dumps(rows, indent=1))
    sys.exit(any(result.faults for result in results))


if __name__ == "__main__":
    main()
