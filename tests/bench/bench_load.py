"""The service with many followers, many stored jobs and a long queue.

``python -m tests.bench.bench_load following stored draining`` runs parts of it; ``--postgres`` runs
the first two on PostgreSQL as well. The service is a real server in a process of its own, and its
clients are in others. Where nothing is to be trained, attempts are played by a process that writes
what attempts write (``tests/bench/load/played.py``); the queue is drained on a real Ray.
"""

import argparse
import contextlib
import os
import sys

import psutil

from tests.bench.bench_service import row
from tests.bench.load import draining, following, stored
from tests.postgres import Postgres

PARTS = ("following", "stored", "draining")


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_load", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--postgres", action="store_true", help="on PostgreSQL as well")
    parser.add_argument("--jobs", type=int, default=draining.JOBS, help="to be drained")
    parser.add_argument("--minutes", type=float, default=24 * 60, help="the most of draining")
    chosen = parser.parse_args(arguments or [])
    if unknown := set(chosen.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}")
    row("figure", "measured", "floor", "ratio", "bar")
    _tell_load()
    for part in chosen.parts or PARTS:
        if part == "draining":
            draining.measure(chosen.jobs, 60 * chosen.minutes)
        else:
            measure = following.measure if part == "following" else stored.measure
            measure("SQLite")
            if chosen.postgres:
                with contextlib.closing(Postgres(is_durable=True)) as server:
                    measure("PostgreSQL", server.url())
        _tell_load()


def _tell_load() -> None:
    """How busy the machine is besides."""
    load = " ".join(f"{each:.1f}" for each in psutil.getloadavg())
    row(f"load of the machine over 1, 5 and 15 minutes ({os.cpu_count()} cores)", load, "", "", "")


if __name__ == "__main__":
    main(sys.argv[1:])
