"""Pictures of samples: grids, scatter plots and film strips as PNG; see also workers.layouts.

Values are clipped to [0, 1] here and nowhere else: for drawing only.
"""

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GAP = 2  # pixels between two tiles
_SMALL_TILE = 56  # tiles are enlarged by a whole factor up to this side
_BACKGROUND = 96  # grey, so that black and white tiles both have an edge
_LABEL_WIDTH = 84
DPI = 100

Samples = NDArray[Any]


def render(samples: Samples, is_image: bool) -> bytes:
    """A grid of pictures (N×H×W or N×H×W×C), or a scatter plot of vectors (N×D)."""
    return grid_png(samples) if is_image else scatter_png(samples)


def grid_png(images: Samples, columns: int | None = None, scale: int | None = None) -> bytes:
    """Pictures of values in [0, 1] in rows of ``columns`` (default: nearly square).

    Each pixel becomes ``scale``×``scale`` pixels (default: tiles of up to 56).
    """
    count = len(images)
    columns = columns or max(1, math.ceil(math.sqrt(count)))
    return _png(tile(images, columns, scale or enlargement(images)))


def filmstrip_png(rows: Sequence[tuple[str, Samples]]) -> bytes:
    """One labelled row for each checkpoint, from top to bottom; vectors become scatter plots."""
    if rows[0][1].ndim < 3:
        return _scatter_strip(rows)
    scale = enlargement(rows[0][1])
    strips = [(label, tile(images, max(1, len(images)), scale)) for label, images in rows]
    width = _LABEL_WIDTH + max(strip.shape[1] for _, strip in strips)
    height = sum(strip.shape[0] for _, strip in strips)
    canvas = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=14)
    top = 0
    for label, strip in strips:
        middle = top + strip.shape[0] / 2
        draw.text((6, middle), label, fill=(0, 0, 0), font=font, anchor="lm")
        canvas.paste(Image.fromarray(strip).convert("RGB"), (_LABEL_WIDTH, top))
        top += strip.shape[0]
    return encode(canvas)


def scatter_png(points: Samples, title: str = "") -> bytes:
    """Vectors as points: in the plane, in space, or the first two of more dimensions."""
    figure = new_figure(4.8, 4.8, layout=None)
    _scatter(figure, (1, 1, 1), points, title)
    return encode_figure(figure)


def _scatter_strip(rows: Sequence[tuple[str, Samples]]) -> bytes:
    figure = new_figure(2.4 * len(rows), 2.6)
    for index, (label, points) in enumerate(rows):
        _scatter(figure, (1, len(rows), index + 1), points, label)
    return encode_figure(figure)


def _scatter(figure: "Figure", place: tuple[int, int, int], points: Samples, title: str) -> None:
    dimensions = points.shape[1]
    size = max(1.0, min(12.0, 4000 / max(1, len(points))))
    if dimensions == 3:
        axes = figure.add_subplot(*place, projection="3d")
        axes.scatter(points[:, 0], points[:, 1], points[:, 2], s=size)
    else:
        axes = figure.add_subplot(*place)
        second = points[:, 1] if dimensions > 1 else np.zeros(len(points))
        axes.scatter(points[:, 0], second, s=size)
        axes.set_aspect("equal", adjustable="datalim")
    if title:
        axes.set_title(title)


def new_figure(
    width: float, height: float, layout: Literal["constrained"] | None = "constrained"
) -> "Figure":
    """An empty figure of so many inches."""
    # Imported where it is used: it takes a while, and memory, that nothing else should wait for.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout=layout)


def encode_figure(figure: "Figure") -> bytes:
    """The figure as PNG; equal figures give equal bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    # Without the version of matplotlib in it, equal points give equal bytes for longer.
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def enlargement(images: Samples) -> int:
    """The whole factor by which small pictures N×H×W(×C) are enlarged."""
    height, width = images.shape[1:3]
    return max(1, _SMALL_TILE // int(max(height, width)))


def tile(images: Samples, columns: int, scale: int) -> NDArray[np.uint8]:
    """All tiles on one canvas, H×W or H×W×3, with a gap around each."""
    pixels = np.rint(np.clip(images, 0.0, 1.0) * 255).astype(np.uint8)
    if pixels.ndim == 4 and pixels.shape[3] == 1:
        pixels = pixels[..., 0]
    pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    count, height, width = pixels.shape[:3]
    rows = max(1, math.ceil(count / columns))
    canvas = np.full(
        (rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, *pixels.shape[3:]),
        _BACKGROUND,
        np.uint8,
    )
    for index in range(count):
        top = GAP + index // columns * (height + GAP)
        left = GAP + index % columns * (width + GAP)
        canvas[top : top + height, left : left + width] = pixels[index]
    return canvas


def _png(pixels: NDArray[np.uint8]) -> bytes:
    return encode(Image.fromarray(pixels))


def encode(image: Image.Image) -> bytes:
    """The image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()
