"""Pictures that put several things side by side, with words for each: reconstructions and paths."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from workers.images import GAP, Samples, encode, encode_figure, enlargement, new_figure, tile

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BAND_WIDTH = 944  # pixels of pictures side by side, before the next band begins below
_MARGIN = 8
_FONT_SIZE = 14
_WHITE, _BLACK, _GREY = (255, 255, 255), (0, 0, 0), "0.75"


def rows_png(rows: Sequence[tuple[str, Samples]], is_image: bool) -> bytes:
    """Rows of as many data each, one below the other: datum i of all rows in one column.

    Many columns go into several bands; vectors become a panel for each row, on the same axes.
    """
    if not is_image:
        return _panels(rows)
    scale = enlargement(rows[0][1])
    count, width = len(rows[0][1]), rows[0][1].shape[2] * scale + GAP
    columns = min(count, max(1, _BAND_WIDTH // width))
    labels = [label for label, _ in rows]
    bands = []
    for begin in range(0, count, columns):
        strips = [tile(images[begin : begin + columns], columns, scale) for _, images in rows]
        # The last band ends with its last picture.
        strips = [strip[:, : (count - begin) * width + GAP] for strip in strips]
        bands.append(_labelled_rows(labels, strips))
    return encode(_below_each_other(bands))


def paths_png(g: Samples, x: Samples | None, is_image: bool) -> bytes:
    """Decoded paths g (n×steps×…), one row each, between the data x (n×2×…) at their ends.

    Vectors become lines through their points.
    """
    if not is_image:
        return _lines(g, x)
    steps = g.shape[1]
    scale = enlargement(g[0])
    width = g.shape[3] * scale + GAP
    blocks = [(_shares(steps), tile(g.reshape(-1, *g.shape[2:]), steps, scale))]
    if x is not None:
        first, last = (tile(x[:, end], 1, scale) for end in (0, 1))
        blocks = [(["data"], first), *blocks, (["data"], last)]
    heads = [_head(texts, width, block.shape[1]) for texts, block in blocks]
    columns = [
        _stacked([head, Image.fromarray(block).convert("RGB")])
        for head, (_, block) in zip(heads, blocks, strict=True)
    ]
    return encode(_beside_each_other(columns))


def _shares(steps: int) -> list[str]:
    """How far along the path each column is."""
    return ["t = 0", *(f"{t:.2f}" for t in np.linspace(0, 1, steps)[1:-1]), "1"]


# --- pictures -------------------------------------------------------------------------------------


def _font() -> Any:
    return ImageFont.load_default(size=_FONT_SIZE)


def _labelled_rows(labels: Sequence[str], strips: Sequence[Samples]) -> Image.Image:
    font = _font()
    label_width = 2 * _MARGIN + max(int(font.getlength(label)) for label in labels)
    height = sum(max(strip.shape[0], _FONT_SIZE + GAP) for strip in strips)
    canvas = Image.new("RGB", (label_width + strips[0].shape[1], height), _WHITE)
    draw = ImageDraw.Draw(canvas)
    top = 0
    for label, strip in zip(labels, strips, strict=True):
        place = max(strip.shape[0], _FONT_SIZE + GAP)
        draw.text((_MARGIN, top + place / 2), label, fill=_BLACK, font=font, anchor="lm")
        canvas.paste(Image.fromarray(strip).convert("RGB"), (label_width, top))
        top += place
    return canvas


def _head(texts: Sequence[str], width: int, total: int) -> Image.Image:
    """A line of words, each over the middle of its column; those that are too wide are left out."""
    font = _font()
    head = Image.new("RGB", (total, _FONT_SIZE + _MARGIN), _WHITE)
    draw = ImageDraw.Draw(head)
    for index, text in enumerate(texts):
        if font.getlength(text) <= width:
            middle = GAP + (index + 0.5) * width - GAP / 2
            draw.text((middle, head.height / 2), text, fill=_BLACK, font=font, anchor="mm")
    return head


def _stacked(parts: Sequence[Image.Image], gap: int = 0) -> Image.Image:
    height = sum(part.height for part in parts) + gap * (len(parts) - 1)
    canvas = Image.new("RGB", (max(part.width for part in parts), height), _WHITE)
    top = 0
    for part in parts:
        canvas.paste(part, (0, top))
        top += part.height + gap
    return canvas


def _below_each_other(bands: Sequence[Image.Image]) -> Image.Image:
    return _stacked(bands, gap=_MARGIN)


def _beside_each_other(columns: Sequence[Image.Image]) -> Image.Image:
    width = sum(column.width for column in columns) + _MARGIN * (len(columns) - 1)
    canvas = Image.new("RGB", (width, max(column.height for column in columns)), _WHITE)
    left = 0
    for column in columns:
        canvas.paste(column, (left, 0))
        left += column.width + _MARGIN
    return canvas


# --- vectors --------------------------------------------------------------------------------------


def _panels(rows: Sequence[tuple[str, Samples]]) -> bytes:
    """A scatter plot for each row on the same axes; the first row is grey behind the others."""
    figure = new_figure(4.0 * len(rows), 4.2)
    points = [_coordinates(values) for _, values in rows]
    limits = _limits(np.concatenate(points))
    size = max(2.0, min(12.0, 4000 / len(points[0])))
    for index, (label, _) in enumerate(rows):
        axes = _axes(figure, (1, len(rows), index + 1), points[0].shape[1], limits)
        if index:
            axes.scatter(*points[0].T, s=size, color=_GREY)
        axes.scatter(*points[index].T, s=size)
        axes.set_title(f"{label} (x is grey)" if index else label)
    _say_what_is_missing(figure, rows[0][1].shape[-1])
    return encode_figure(figure)


def _lines(g: Samples, x: Samples | None) -> bytes:
    figure = new_figure(6.0, 6.2)
    paths = _coordinates(g)
    shown = [paths.reshape(-1, paths.shape[-1])]
    ends = None if x is None else _coordinates(x)
    if ends is not None:
        shown.append(ends.reshape(-1, ends.shape[-1]))
    limits = _limits(np.concatenate(shown))
    axes = _axes(figure, (1, 1, 1), paths.shape[-1], limits)
    for index, path in enumerate(paths):
        [line] = axes.plot(*path.T, marker=".", markersize=4, linewidth=1)
        axes.plot(*path[:1].T, marker="o", color=line.get_color())
        axes.plot(*path[-1:].T, marker="s", color=line.get_color())
        if ends is not None:
            axes.plot(*ends[index].T, marker="x", color=line.get_color(), linestyle="none")
    data = "" if x is None else ", the data are ×"
    axes.set_title(f"from ● to ■ in {paths.shape[1]} steps{data}")
    _say_what_is_missing(figure, g.shape[-1])
    return encode_figure(figure)


def _coordinates(values: Samples) -> Samples:
    """What can be drawn of vectors (…×D): three dimensions, else the first two, or one and 0."""
    if values.shape[-1] == 1:
        return np.concatenate((values, np.zeros_like(values)), -1)
    return values if values.shape[-1] == 3 else values[..., :2]


def _limits(points: Samples) -> list[tuple[float, float]]:
    """Equal lengths on all axes around the middle of the points, with a margin."""
    low, high = points.min(0), points.max(0)
    half = 0.54 * max(float((high - low).max()), 1e-6)
    return [(float(middle) - half, float(middle) + half) for middle in (low + high) / 2]


def _axes(
    figure: "Figure",
    place: tuple[int, int, int],
    dimensions: int,
    limits: list[tuple[float, float]],
) -> Any:
    axes: Any = figure.add_subplot(*place, projection="3d" if dimensions == 3 else None)
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])
    if dimensions == 3:
        axes.set_zlim(limits[2])
    else:
        axes.set_aspect("equal")
    return axes


def _say_what_is_missing(figure: "Figure", dimensions: int) -> None:
    if dimensions > 3:
        figure.supxlabel(f"the first two of {dimensions} dimensions")
