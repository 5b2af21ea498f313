"""``python -m tests.chaos.leaders``: at least 100 kills of the leader and of the database.

Each series strikes one installation under a steady load of jobs and judges it at its end; the exit
status is 1 if anything was lost, written by an old leader, or taken in twice. ``--out`` adds every
series to a file; ``--table FILE…`` only tells what files hold.
"""

import argparse
import json
import random
import signal
import sys
import time
from math import inf
from pathlib import Path

from tests.chaos.leaders import report
from tests.chaos.leaders.installation import installed
from tests.chaos.leaders.series import run
from tests.chaos.leaders.strikes import Action, Victim

# How many strikes of each kind there are in one series.
SERIES: tuple[tuple[Victim, Action, int], ...] = (
    ("leader", "kill", 30),
    ("leader", "stop", 4),
    ("leader", "cut", 4),
    ("database", "kill", 20),
    ("database", "stop", 2),
    ("database", "cut", 2),
)
SERIES_COUNT = 2


def main() -> None:
    """Strike, judge, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.leaders", description=__doc__)
    parser.add_argument("--series", type=int, default=SERIES_COUNT, help="installations, in turn")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first series")
    parser.add_argument("--only", default="", help="strikes like leader/kill")
    parser.add_argument("--minutes", type=float, default=inf, help="the most of one series")
    parser.add_argument("--out", type=Path, default=None, help="add results to it, as JSON lines")
    parser.add_argument("--table", type=Path, nargs="+", help="only tabulate these files")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing stays behind
    rows = report.read(chosen.table or [])
    for seed in range(chosen.seed, chosen.seed + (0 if chosen.table else chosen.series)):
        work = [
            (victim, action)
            for victim, action, count in SERIES
            for _ in range(count)
            if chosen.only in f"{victim}/{action}"
        ]
        random.Random(seed).shuffle(work)
        began = time.monotonic()
        with installed() as site:
            found = run(site, work, seed, 60 * chosen.minutes)
        rows.append(report.row(found))
        print(
            f"series {seed}: {len(found.strikes)} strikes in {time.monotonic() - began:.0f} s",
            flush=True,
        )
        if chosen.out is not None:
            with chosen.out.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    print(report.table(rows))
    print(report.summary(rows))
    sys.exit(any(row["faults"] for row in rows))


if __name__ == "__main__":
    main()
