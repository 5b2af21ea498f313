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
from service.studies.labels import labels
from service.studies.ledger import Phase
from service.studies.parallels import Parallels
from service.studies.standings import Outcome
from workers.images import encode_figure, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 7.2, 4.8  # inches
_LETTERS_AN_INCH = 15  # of a note
_TITLE_LETTERS_AN_INCH = 11
_TICKS_LETTERS = 60  # of all names along an axis; more of them would overlap
_MARK_LETTERS = 20
_COLOURS = 10
_ON_FRESH_SEEDS = "on fresh seeds"


def short(pointer: str) -> str:
    """A pointer as a label: its last two keys."""
    return "/".join(pointer.split("/")[-2:])


def _names(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """A label for each of these values of the same parameters, by which they can be told apart."""
    names = [""] * len(found)
    for pointer in found[0] if found else ():
        texts = labels([values[pointer] for values in found])
        names = [
            f"{name}, {short(pointer)} {text}" if name else f"{short(pointer)} {text}"
            for name, text in zip(names, texts, strict=True)
        ]
    return names


def _figure(width: float = _WIDTH, height: float = _HEIGHT) -> "tuple[Figure, Axes]":
    make_ready_to_plot()
    figure = new_figure(width, height)
    return figure, figure.add_subplot(1, 1, 1)


def _finish(figure: "Figure", axes: "Axes", title: str, notes: Sequence[str] = ()) -> bytes:
    width = int(_TITLE_LETTERS_AN_INCH * figure.get_figwidth())
    axes.set_title(_filled(title.splitlines(), width), fontsize=10)
    if notes:
        width = int(_LETTERS_AN_INCH * figure.get_figwidth())
        figure.supxlabel(_filled(notes, width), fontsize=8)
    return encode_figure(figure)


def _filled(lines: Sequence[str], width: int) -> str:
    return "\n".join(textwrap.fill(line, width) for line in lines)


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
    names = _names([process.where for process in found.processes])
    for place, (process, name) in enumerate(zip(found.processes, names, strict=True)):
        colour = f"C{place % _COLOURS}"
        axes.plot(process.places[0], process.mean, color=colour, label=name or None)
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
    along = labels([level.values[first.pointer] for level in found.levels])
    beside = _names([{a.pointer: level.values[a.pointer] for a in rest} for level in found.levels])
    names, others = list(dict.fromkeys(along)), list(dict.fromkeys(beside))
    placed = list(zip(found.levels, map(names.index, along), beside, strict=True))
    for place, other in enumerate(others):
        shift = (place - (len(others) - 1) / 2) * 0.6 / max(len(others), 1)
        mine = [level for level, _, of in placed if of == other]
        x = [at + shift for _, at, of in placed if of == other]
        mean = [level.interval.mean for level in mine]
        # One trial alone says nothing of its uncertainty.
        half = [
            level.interval.high - level.interval.mean if level.interval.count > 1 else math.nan
            for level in mine
        ]
        axes.errorbar(x, mean, half, fmt="o", capsize=3, label=other or None)
    axes.set_xticks(range(len(names)), names)
    if sum(map(len, names)) > _TICKS_LETTERS:
        axes.tick_params(axis="x", labelsize=8)
        for tick in axes.get_xticklabels():
            tick.set(rotation=20, ha="right")
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
        texts = labels(options, _MARK_LETTERS)
        last = max(len(options) - 1, 1)
        every = 1 if len(options) <= 8 else last
        return [(place / last, texts[place]) for place in range(0, len(options), every)]
    low, high = axis.places(2)
    return list(zip((0.0, 1.0), labels([low, high]), strict=True))
