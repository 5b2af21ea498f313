"""Panels beside one another, and columns of rows, for the pictures of figures."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from workers.images import new_figure
from workers.paper.base import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIDE = 4.2  # inches


def panels(count: int) -> "tuple[Figure, list[Axes]]":
    """A figure of so many panels in one row."""
    figure = new_figure(_SIDE * count + 0.6, _SIDE)
    return figure, [figure.add_subplot(1, count, place + 1) for place in range(count)]


def label(axes: "Axes", title: str, x: str, y: str, *, legend: bool = True) -> None:
    """Title, names of both axes, a light grid and a legend."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, which="major", alpha=0.25, linewidth=0.6)
    if legend:
        axes.legend(fontsize=8)


def of_kind(rows: Sequence[Row], column: str, value: float | int | str) -> list[Row]:
    """The rows that have a value in a column, in order."""
    return [row for row in rows if row.get(column) == value]


def column(rows: Sequence[Row], name: str) -> NDArray[np.float64]:
    """The numbers in a column, float64 of shape (rows,)."""
    return np.array([float(row[name]) for row in rows], np.float64)
