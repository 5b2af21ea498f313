"""How near samples are to data, by measures that do not depend on the noise of training.

Features are rows of N×F; everything is float64 and a pure function of its arguments.
"""

from workers.quality.features import NetworkFeatures, PixelPca, lacking, pictures
from workers.quality.frechet import frechet_distance
from workers.quality.kernels import Estimate, kid, mmd
from workers.quality.neighbours import Support, memorisation, support
from workers.quality.report import (
    Assessment,
    Measure,
    Report,
    likelihood_measures,
    likelihood_names,
)
from workers.quality.sliced import sliced_wasserstein
from workers.quality.weights import BARE, Shelf

__all__ = [
    "BARE",
    "Assessment",
    "Estimate",
    "Measure",
    "NetworkFeatures",
    "PixelPca",
    "Report",
    "Shelf",
    "Support",
    "frechet_distance",
    "kid",
    "lacking",
    "likelihood_measures",
    "likelihood_names",
    "memorisation",
    "mmd",
    "pictures",
    "sliced_wasserstein",
    "support",
]
