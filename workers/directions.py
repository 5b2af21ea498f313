"""The learned directions of a low-rank covariance, to look at.

Σ = s²I + c²QQᵀ has the same eigenvalue for all columns of Q, so only their span says something. It
is shown by the directions within it along which the training data vary most, the largest first: the
eigenvectors of Qᵀ Cov(x) Q, turned back by Q.
"""

import numpy as np
import torch
from torch import Tensor

from workers.images import Samples, encode_figure, grid_png
from workers.metrics import as_float

_ROWS = 1024


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
    """Pictures in which grey is 0, each stretched to its own range; or bars for vectors."""
    directions = sorted_directions(basis.detach(), rows)
    if not is_image:
        return _bars(directions)
    largest = np.abs(directions).max(1, keepdims=True)
    return grid_png((directions / (2 * largest) + 0.5).reshape(-1, *shape))


def _bars(directions: Samples) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 0.6 + 1.2 * len(directions)), layout="constrained")
    for index, direction in enumerate(directions):
        axes = figure.add_subplot(len(directions), 1, index + 1)
        axes.bar(np.arange(len(direction)), direction)
        axes.axhline(0, color="black", linewidth=0.5)
        axes.set_ylim(-1, 1)
    return encode_figure(figure)
