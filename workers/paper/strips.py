"""The picture of arms: samples of each at the same latents, one strip below the other."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from workers.images import DPI, Samples, encode_figure, new_figure, tile
from workers.paper.arms import DATA, FRECHET, SHOWN, Arm
from workers.paper.base import Kept, Row
from workers.paper.means import Mean
from workers.paper.panels import column, of_kind

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = SHOWN // 2
_TILE = 56  # pixels that the side of a picture has at least
_MARGIN, _HEAD, _LINE, _GAP = 14, 44, 24, 12  # pixels
_SHOWN = {
    FRECHET: "Fréchet",
    "kid_pca": "KID",
    "recall_pca": "recall",
    "sample_total_variance": "variance",
}


def strips_png(title: str, arms: Sequence[Arm], rows: Sequence[Row], kept: Kept) -> bytes:
    """Held-out data, then each arm's samples, with its measures below: means over the seeds."""
    data = float(rows[0]["data_total_variance"])
    words = [("held-out data", f"variance {data:.3g}")]
    words += [(arm.title, _measures(of_kind(rows, "arm", arm.name))) for arm in arms]
    pictures = [kept[name].numpy() / 255 for name in (DATA, *(arm.name for arm in arms))]
    scale = math.ceil(_TILE / max(pictures[0].shape[1:3]))
    strips = [tile(found, _COLUMNS, scale) for found in pictures]
    height, width = strips[0].shape[:2]
    block = _LINE + height + _LINE + _GAP
    size = (2 * _MARGIN + width, _HEAD + len(strips) * block + 2 * _LINE)
    figure = new_figure(size[0] / DPI, size[1] / DPI, layout=None)
    _write(figure, size, 22, title, size=12)
    for place, (strip, (name, measures)) in enumerate(zip(strips, words, strict=True)):
        top = _HEAD + place * block
        _write(figure, size, top + 12, name, size=10, weight="bold")
        _paste(figure, strip, size[1] - top - _LINE - height)
        _write(figure, size, top + _LINE + height + 12, measures, size=9)
    for place, line in enumerate(_told(rows)):
        _write(figure, size, size[1] - 40 + 18 * place, line, size=8, color="0.35")
    return encode_figure(figure)


def _measures(rows: Sequence[Row]) -> str:
    return "    ".join(f"{word} {Mean.of(column(rows, name))}" for name, word in _SHOWN.items())


def _told(rows: Sequence[Row]) -> tuple[str, str]:
    """How the numbers were made."""
    first, seeds = rows[0], len({row["repetition"] for row in rows})
    return (
        f"{first['samples']} samples against {first['reference']} held-out pictures in "
        f"{first['features']}, trained on {first['train']}.",
        ("One seed." if seeds == 1 else f"Means over {seeds} seeds ± their standard error.")
        + " The same place in every arm is the same latent.",
    )


def _write(
    figure: "Figure",
    whole: tuple[int, int],
    top: int,
    text: str,
    size: int,
    weight: str = "normal",
    color: str = "black",
) -> None:
    """A line of words whose middle is so many pixels from the top."""
    x, y = _MARGIN / whole[0], 1 - top / whole[1]
    figure.text(x, y, text, fontsize=size, fontweight=weight, color=color, va="center")


def _paste(figure: "Figure", strip: Samples, bottom: int) -> None:
    """Pixel by pixel; nothing is resampled."""
    figure.figimage(strip, _MARGIN, bottom, cmap="gray", vmin=0, vmax=255)
