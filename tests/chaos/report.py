"""The results of strikes as JSON lines, as a table, and as one line against the bar."""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.chaos.cells import MATRIX, SHORT_STOP_S, Cell, must
from tests.chaos.judge import Faults
from tests.chaos.strike import Result

HITS_WANTED = 200  # in a full run
KINDS = (
    *("lost", "false_states", "two_at_once", "orphans", "groups"),
    *("keys", "recomputed", "needless"),
)


def write(result: Result, path: Path) -> None:
    """Add a result to the file, so that a run that is broken off has what it found."""
    row = {**vars(result), "cell": str(result.cell), "faults": vars(result.faults)}
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def read(paths: Iterable[Path]) -> list[Result]:
    """What files of results hold; the last of a cell and seed counts."""
    cells = {str(cell): cell for cell in MATRIX}
    found: dict[tuple[Cell, int], Result] = {}
    for path in paths:
        for line in path.read_text().splitlines():
            row = json.loads(line)
            cell, faults = cells[row.pop("cell")], Faults(**row.pop("faults"))
            found[cell, row["seed"]] = Result(cell=cell, faults=faults, **row)
    return in_order(found.values())


def in_order(results: Iterable[Result]) -> list[Result]:
    """By the matrix, then by seed."""
    return sorted(results, key=lambda result: (MATRIX.index(result.cell), result.seed))


def table(results: Sequence[Result]) -> str:
    """The matrix in Markdown: one row for a victim and an action in a setting, over the phases."""
    rows = [
        "| setting | victim | action | hits | lost | false | two at once | orphans | groups "
        "| keys | recomputed steps | seconds to recovery | must |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    by_row: dict[tuple[str, str, str], list[Result]] = defaultdict(list)
    for result in results:
        by_row[result.cell.setting, result.cell.victim, result.cell.action].append(result)
    for names, runs in by_row.items():
        hits = [result for result in runs if not result.missed]
        counts = [
            sum(len(getattr(result.faults, kind)) for result in hits)
            for kind in ("lost", "false_states", "two_at_once", "orphans", "groups")
        ]
        values = [*names, len(hits), *counts, sum(result.debris for result in hits)]
        values += [max((result.recomputed_steps for result in hits), default=0)]
        values += [_recovery(hits) or "–", _attempts(runs)]
        rows.append("| " + " | ".join(str(value) for value in values) + " |")
    return "\n".join(rows)


def summary(results: Sequence[Result]) -> str:
    """The figures of the bar, in one line."""
    hits = [result for result in results if not result.missed]
    kills = sum(result.cell.action == "kill" for result in hits)
    long = sum(result.stopped_s > SHORT_STOP_S for result in hits)
    parts = [
        f"{len(hits)} hits in {len({result.cell for result in hits})} cells ({kills} kills, "
        f"{len(hits) - kills} stops and cuts, {long} of them long)",
        f"{len(results) - len(hits)} times nothing to hit",
    ]
    for kind in KINDS:
        count = sum(len(getattr(result.faults, kind)) for result in results)
        words = "keys that the sweep does not find" if kind == "keys" else kind.replace("_", " ")
        parts.append(f"{words} {count}")
    parts.append(f"leftover keys {sum(result.debris for result in hits)}")
    parts.append(f"recomputed steps at most {max((r.recomputed_steps for r in hits), default=0)}")
    kill_recovery = _recovery([result for result in hits if result.cell.action == "kill"])
    return "; ".join([*parts, f"seconds to recovery from a kill: {kill_recovery or '–'}"])


def _recovery(hits: Sequence[Result]) -> str:
    seconds = [result.recovery_s for result in hits if result.recovery_s is not None]
    return f"{statistics.median(seconds):.1f}, most {max(seconds):.1f}" if seconds else ""


def _attempts(runs: Sequence[Result]) -> str:
    """How many attempts the strikes of a row may cost, by the length of a stop."""
    usual = [run for run in runs if run.cell.phase not in ("queued", "pausing")]
    short = [run for run in usual if run.stopped_s <= SHORT_STOP_S]
    long = [run for run in usual if run.stopped_s > SHORT_STOP_S]
    one_more = [
        any(must(run.cell, run.stopped_s).more_attempts for run in part) for part in (short, long)
    ]
    match one_more:
        case [False, True]:
            return "short: same attempt; long: one more"
        case [True, _]:
            return "one more attempt"
    return "same attempt"
