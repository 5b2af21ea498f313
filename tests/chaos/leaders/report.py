"""Series of strikes as JSON, as a table in Markdown, and as one line against the bar."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench.bench_service import quantile
from tests.chaos.leaders.series import Found


def row(found: Found) -> dict[str, Any]:
    """One series, as it is kept."""
    return {
        "strikes": [asdict(each) for each in found.strikes],
        "faults": found.verdict.sentences(),
        "counts": dict(found.verdict.counts),
    }


def read(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """The series that files hold."""
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Times by victim and action, in seconds from the strike."""
    strikes = [strike for each in rows for strike in each["strikes"]]
    lines = [
        "| victim | action | strikes | another led | takeover p50 | p90 | max "
        "| a leader's next write p50 | p90 | max |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for kind in sorted({(each["victim"], each["action"]) for each in strikes}, reverse=True):
        these = [each for each in strikes if (each["victim"], each["action"]) == kind]
        taken = [each["takeover_s"] for each in these if each["takeover_s"] is not None]
        work = [each["at_work_s"] for each in these]
        values = [*kind, len(these), len(taken), *_times(taken), *_times(work)]
        lines.append("| " + " | ".join(str(value) for value in values) + " |")
    return "\n".join(lines)


def _times(seconds: Sequence[float]) -> list[str]:
    if not seconds:
        return ["–"] * 3
    return [f"{quantile(seconds, share):.1f}" for share in (0.5, 0.9, 1.0)]


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """What was looked at, and how many faults there were."""
    counts: Counter[str] = Counter()
    for each in rows:
        counts.update(each["counts"])
    strikes = [strike for each in rows for strike in each["strikes"]]
    kills = sum(strike["action"] == "kill" for strike in strikes)
    return (
        f"{len(strikes)} strikes ({kills} kills) in {len(rows)} series; "
        f"{sum(len(each['faults']) for each in rows)} faults; "
        + ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in sorted(counts.items()))
    )
