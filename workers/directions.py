"""The learned directions of a low-rank covariance, to look at.

Σ = s²I + c²QQᵀ has the same eigenvalue for all columns of Q, so only their span says something. It
is shown by the directions within it along which the training data vary most, the largest first: the
eigenvectors of Qᵀ Cov(x) Q, turned back by Q.
"""

import numpy as np
import torch
from torch import Tensor

from workers.images import Samples, encode_figure, grid_png, new_figure
from workers.metrics import as_float

_ROWS = 1024
_CHARTED, _COLUMNS = 16, 512  # directions of vectors that are drawn, and columns that one can see


def sorted_directions(basis: Tensor, rows: Tensor) -> Samples:
    """The directions, float32 of shape (R, D), from Q (D×R) and training data N×D.

    The sign of each makes its largest value positive.
    """
    x = as_float(rows[:: max(1, len(rows) // _ROWS)][:_ROWS])
    along = ((x - x.mean(0)) @ basis).double()
    _, turn = torch.linalg.eigh(along.T @ along)
    directions = (basis.double() @ turn.flip(1)).T
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    found: Samples = (directions * largest.sign()).float().cpu().numpy()
    return found


def directions_png(basis: Tensor, rows: Tensor, shape: tuple[int, ...], *, is_image: bool) -> bytes:
    """Pictures in which grey is 0, each stretched to its own range; or a chart for vectors."""
    directions = sorted_directions(basis.detach(), rows)
    if not is_image:
        return _chart(directions)
    largest = np.abs(directions).max(1, keepdims=True)
    return grid_png((directions / (2 * largest) + 0.5).reshape(-1, *shape))


def _chart(directions: Samples) -> bytes:
    """The first directions as rows of colours, in time that does not depend on R and D."""
    from matplotlib.ticker import MaxNLocator

    count, dimensions = directions.shape
    rows = strongest(directions[:_CHARTED], _COLUMNS)
    figure = new_figure(7.2, 1.4 + 0.22 * len(rows))
    axes = figure.add_subplot()
    largest = float(np.abs(rows).max())
    picture = axes.imshow(
        rows,
        cmap="RdBu_r",
        vmin=-largest,
        vmax=largest,
        aspect="auto",
        interpolation="nearest",
        extent=(-0.5, dimensions - 0.5, len(rows) + 0.5, 0.5),
    )
    for ticked in (axes.xaxis, axes.yaxis):
        ticked.set_major_locator(MaxNLocator(integer=True))
    of_all = f"first {len(rows)} of {count} directions" if count > len(rows) else "direction"
    axes.set(xlabel="dimension", ylabel=of_all)
    figure.colorbar(picture)
    return encode_figure(figure)


def strongest(directions: Samples, columns: int) -> Samples:
    """R×D values as at most R×columns: of neighbours, the one that is farthest from 0."""
    parts = np.array_split(directions, min(columns, directions.shape[1]), axis=1)
    chosen = [np.abs(part).argmax(1, keepdims=True) for part in parts]
    return np.hstack(
        [np.take_along_axis(part, at, 1) for part, at in zip(parts, chosen, strict=True)]
    )
