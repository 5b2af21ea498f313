"""The figures that there are, by name."""

from collections.abc import Mapping

from workers.paper.base import Figure
from workers.paper.efficiency import EFFICIENCY
from workers.paper.equation12 import EQUATION_12
from workers.paper.figure1 import FIGURE_1
from workers.paper.figure2 import FIGURE_2
from workers.paper.figure3 import FIGURE_3
from workers.paper.figure4 import FIGURE_4A, FIGURE_4B
from workers.paper.figure5 import FIGURE_5
from workers.paper.figure6 import FIGURE_6
from workers.paper.mle_existence import MLE_EXISTENCE
from workers.paper.noise_mixture import NOISE_MIXTURE

_ALL: tuple[Figure, ...] = (
    EQUATION_12,
    FIGURE_1,
    FIGURE_2,
    FIGURE_3,
    FIGURE_4A,
    FIGURE_4B,
    FIGURE_5,
    FIGURE_6,
    EFFICIENCY,
    NOISE_MIXTURE,
    MLE_EXISTENCE,
)
FIGURES: Mapping[str, Figure] = {figure.name: figure for figure in _ALL}
TAKING_DATA = frozenset({"5", "6"})  # that may be given a data set; all others draw their own
SHARED = frozenset({"4a", "4b"})  # whose every part is of one repetition: jobs can share them
