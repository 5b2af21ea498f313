"""Answers about studies as lines for people."""

import json
from collections.abc import Mapping
from typing import Any

from api import bodies


def told_of_best(found: bodies.BestBody) -> list[str]:
    """Which configuration is the best, and which cannot be told from it."""
    metric = found.objective.metric
    lines = [f"{found.stage}: {found.message}"]
    if found.configuration is None or found.values is None:
        return lines
    name = "candidate" if found.is_candidate else "best"
    lines.append(f"{name} {found.configuration}: {values_in_words(found.values)}")
    if found.schedule is not None:
        scales = ", ".join(f"{one.scale:.4g} from epoch {one.from_epoch}" for one in found.schedule)
        lines.append(f"its schedule of the scale: {scales}")
    if found.interval is not None:
        low, high = (
            "unknown" if end is None else f"{end:.4g}"
            for end in (found.interval.low, found.interval.high)
        )
        lines.append(
            f"{metric} {found.interval.mean:.4g} on {found.interval.seeds} fresh seeds, "
            f"{found.interval.confidence:.0%} interval {low} to {high}"
        )
    if found.search_value is not None:
        lines.append(f"{metric} {found.search_value:.4g} in the search, too good to be true")
    others = [one for one in found.indistinguishable if one.configuration != found.configuration]
    lines += [
        f"as good, maybe: {one.configuration}: {values_in_words(one.values)}" for one in others
    ]
    for check in found.checks:
        verdict = "the same order" if check.agrees else f"another order, its best is {check.best}"
        lines.append(f"by {check.metric}: {verdict}")
    if found.shares:
        shares = ", ".join(f"{metric} {mean:.4g}" for metric, mean in found.shares.items())
        lines.append(f"of the best on fresh seeds: {shares}")
    return lines


def values_in_words(values: Mapping[str, Any]) -> str:
    """The values of a configuration by the last part of their pointers."""
    return ", ".join(
        f"{pointer.rpartition('/')[2]}={_text(value)}" for pointer, value in values.items()
    )


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)
