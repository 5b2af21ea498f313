"""Pictures of what a study's results show, as PNG."""

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from service.drawings import make_ready_to_plot
from service.studies.curves import Axis, CurveAnswer, Process
from service.studies.fronts import Front
from service.studies.importance import Importance
from service.studies.ledger import Phase
from service.studies.parallels import Parallels
from service.studies.standings import Outcome
from workers.images import encode_figure, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 7.2, 4.8  # inches
_LETTERS_AN_INCH = 15  # of a note
_COLOURS = 10
_ON_FRESH_SEEDS = "on fresh seeds"


def short(pointer: str) -> str:
    """A pointer as a label: its last two keys."""
    return "/".join(pointer.split("/")[-2:])


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)


def _named(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{short(pointer)} {_text(value)}" for pointer, value in values.items())


def _figure(width: float = _WIDTH, height: float = _HEIGHT) -> "tuple[Figure, Axes]":
    make_ready_to_plot()
    figure = new_figure(width, height)
    return figure, figure.add_subplot(1, 1, 1)


def _finish(figure: "Figure", axes: "Axes", title: str, notes: Sequence[str] = ()) -> bytes:
    axes.set_title(title, fontsize=10)
    if notes:
        width = int(_LETTERS_AN_INCH * figure.get_figwidth())
        figure.supxlabel("\n".join(textwrap.fill(note, width) for note in notes), fontsize=8)
    return encode_figure(figure)


# --- curves ---------------------------------------------------------------------------------------


def curve_png(found: CurveAnswer) -> bytes:
    """Means with intervals, a curve with its band for each level, or a map with the trials."""
    figure, axes = _figure()
    if found.levels:
        _levels(axes, found)
    elif len(found.processes[0].along) == 2:
        _map(figure, axes, found, found.processes[0])
    else:
        _bands(axes, found)
    confidence = "95 % intervals"
    title = f"{found.metric} against {' and '.join(short(axis.pointer) for axis in found.axes)}"
    counted = f"{len(found.points)} trials, {confidence}; {found.stopped} stopped or failed"
    return _finish(figure, axes, f"{title}\n{counted}", found.notes)


def _bands(axes: "Axes", found: CurveAnswer) -> None:
    (along,) = (axis for axis in found.axes if axis.pointer == found.processes[0].along[0])
    for place, process in enumerate(found.processes):
        colour = f"C{place % _COLOURS}"
        label = _named(process.where) or None
        axes.plot(process.places[0], process.mean, color=colour, label=label)
        axes.fill_between(
            process.places[0], process.low, process.high, color=colour, alpha=0.2, linewidth=0
        )
        _points(axes, found, along.pointer, process, colour)
    if along.is_log:
        axes.set_xscale("log")
    axes.set_xlabel(along.pointer)
    axes.set_ylabel(found.metric)
    axes.grid(visible=True, alpha=0.25, linewidth=0.6)
    _legend(axes, found.points)


def _points(axes: "Axes", found: CurveAnswer, pointer: str, process: Process, colour: str) -> None:
    mine = [one for one in found.points if _is_at(one, process.where)]
    for phase, marker in ((Phase.SEARCH, "."), (Phase.CONFIRMATION, "x")):
        of_phase = [one for one in mine if one.trial.phase is phase]
        x = [float(one.trial.values[pointer]) for one in of_phase]
        y = [one.value(found.metric) for one in of_phase]
        axes.plot(x, y, marker, color=colour, markersize=5, alpha=0.7)


def _is_at(one: Outcome, where: Mapping[str, Any]) -> bool:
    return all(
        json.dumps(one.trial.values[at], sort_keys=True) == json.dumps(value, sort_keys=True)
        for at, value in where.items()
    )


def _legend(axes: "Axes", points: Sequence[Outcome]) -> None:
    if any(one.trial.phase is Phase.CONFIRMATION for one in points):
        axes.plot([], [], "x", color="0.4", label=_ON_FRESH_SEEDS)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8)


def _levels(axes: "Axes", found: CurveAnswer) -> None:
    first, *rest = found.axes
    names = list(dict.fromkeys(_text(level.values[first.pointer]) for level in found.levels))
    others = list(
        dict.fromkeys(
            _named({axis.pointer: level.values[axis.pointer] for axis in rest})
            for level in found.levels
        )
    )
    for place, other in enumerate(others):
        mine = [
            level
            for level in found.levels
            if _named({axis.pointer: level.values[axis.pointer] for axis in rest}) == other
        ]
        shift = (place - (len(others) - 1) / 2) * 0.6 / max(len(others), 1)
        x = [names.index(_text(level.values[first.pointer])) + shift for level in mine]
        mean = [level.interval.mean for level in mine]
        # One trial alone says nothing of its uncertainty.
        half = [
            level.interval.high - level.interval.mean if level.interval.count > 1 else math.nan
            for level in mine
        ]
        axes.errorbar(x, mean, half, fmt="o", capsize=3, label=other or None)
    axes.set_xticks(range(len(names)), names)
    axes.set_xlabel(first.pointer)
    axes.set_ylabel(found.metric)
    axes.grid(visible=True, axis="y", alpha=0.25, linewidth=0.6)
    if rest:
        axes.legend(fontsize=8)


def _map(figure: "Figure", axes: "Axes", found: CurveAnswer, process: Process) -> None:
    by_pointer = {axis.pointer: axis for axis in found.axes}
    first, second = (by_pointer[pointer] for pointer in process.along)
    filled = axes.contourf(process.places[0], process.places[1], process.mean.T, levels=16)
    figure.colorbar(filled, ax=axes, label=found.metric)
    for phase, marker in ((Phase.SEARCH, "."), (Phase.CONFIRMATION, "x")):
        mine = [one for one in found.points if one.trial.phase is phase]
        x, y = ([float(one.trial.values[p]) for one in mine] for p in process.along)
        axes.plot(x, y, marker, color="white", markeredgecolor="black", markersize=6)
    for axis, scale, label in (
        (first, axes.set_xscale, axes.set_xlabel),
        (second, axes.set_yscale, axes.set_ylabel),
    ):
        if axis.is_log:
            scale("log")
        label(axis.pointer)


# --- fronts, importances, parallel coordinates ----------------------------------------------------


def front_png(found: Front) -> bytes:
    """All configurations, those on the front joined, and those on fresh seeds beside them."""
    figure, axes = _figure()
    for points, front, marker, colour, label in (
        (found.searched, found.front, "o", "C0", "on the search's seeds"),
        (found.fresh, found.fresh_front, "x", "C3", _ON_FRESH_SEEDS),
    ):
        if not points:
            continue
        x, y = zip(*points.values(), strict=True)
        axes.plot(x, y, marker, color=colour, alpha=0.5, label=label)
        if front:
            x, y = zip(*(points[number] for number in front), strict=True)
            axes.plot(x, y, color=colour, linewidth=1)
            for number in front:
                axes.annotate(str(number), points[number], fontsize=7)
    axes.set_xlabel(f"{found.metrics[0]} ({found.modes[0]})")
    axes.set_ylabel(f"{found.metrics[1]} ({found.modes[1]})")
    axes.grid(visible=True, alpha=0.25, linewidth=0.6)
    axes.legend(fontsize=8)
    return _finish(figure, axes, "Configurations that none surpasses in both, by number")


def importance_png(found: Importance) -> bytes:
    """A bar for each parameter, the most important on top."""
    known = [share for share in found.shares if share.importance is not None][::-1]
    figure, axes = _figure(height=1.4 + 0.4 * max(len(known), 1))
    axes.barh([share.pointer for share in known], [share.importance or 0.0 for share in known])
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"share of what the parameters explain of {found.metric}")
    return _finish(figure, axes, f"{found.evaluator}, {found.trials} trials")


def parallel_png(found: Parallels) -> bytes:
    """A line for each trial through its values, coloured by rank: dark ones are the best."""
    from matplotlib import colormaps

    count = len(found.axes) + 1
    figure, axes = _figure(width=max(_WIDTH, 1.6 * count))
    colours = colormaps["viridis"]
    ordered = sorted(found.lines, key=lambda line: -line.rank)  # the best are drawn last
    last = max(len(found.lines) - 1, 1)
    for line in ordered:
        places = [math.nan if place is None else place for place in (*line.places, line.height)]
        style = ":" if line.is_stopped else "-"
        axes.plot(
            range(count), places, style, color=colours(line.rank / last), alpha=0.7, linewidth=1
        )
    names = [short(axis.pointer) for axis in found.axes]
    axes.set_xticks(range(count), [*names, found.metric], rotation=20, ha="right", fontsize=8)
    axes.set_yticks([])
    for place, axis in enumerate(found.axes):
        for at, label in _marks(axis):
            axes.text(place, at, label, fontsize=7, ha="center", va="center", backgroundcolor="w")
    low, high = found.range
    for at, value in ((0.0, low), (1.0, high)):
        axes.text(count - 1, at, f"{value:.4g}", fontsize=7, ha="center", backgroundcolor="w")
    for place in range(count):
        axes.axvline(place, color="0.7", linewidth=0.8, zorder=0)
    axes.set_ylim(-0.06, 1.06)
    title = f"{len(found.lines)} trials by {found.metric}; dark: the best, dotted: stopped early"
    return _finish(figure, axes, title)


def _marks(axis: Axis) -> list[tuple[float, str]]:
    """Where on an axis which values are written."""
    options = axis.dimension.options()
    if axis.has_levels and options is not None:
        shown = options if len(options) <= 8 else (options[0], options[-1])
        last = max(len(options) - 1, 1)
        return [(list(options).index(value) / last, _text(value)[:18]) for value in shown]
    low, high = axis.places(2)
    return [(0.0, _text(low)), (1.0, _text(high))]
