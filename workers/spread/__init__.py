"""The spread p(y|x): noise that makes distributions comparable; see base.py for what is valid."""

from workers.spread.base import Spread
from workers.spread.build import spread_of
from workers.spread.drawn import draw_noise
from workers.spread.noise import Gaussian, Laplace
from workers.spread.per_pixel import PerPixel
from workers.spread.schedule import scale_at, settled_epoch
from workers.spread.tailed import GaussianMixture, Logistic, StudentT

__all__ = [
    "Gaussian",
    "GaussianMixture",
    "Laplace",
    "Logistic",
    "PerPixel",
    "Spread",
    "StudentT",
    "draw_noise",
    "scale_at",
    "settled_epoch",
    "spread_of",
]
