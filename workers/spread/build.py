"""From a spec to the noise that it names."""

from typing import assert_never

import torch

from workers.spec import (
    GaussianMixtureSpread,
    GaussianSpread,
    LaplaceSpread,
    LogisticSpread,
    Noise,
    StudentTSpread,
)
from workers.spread.base import Spread
from workers.spread.noise import Gaussian, Laplace
from workers.spread.per_pixel import PerPixel, relative
from workers.spread.tailed import GaussianMixture, Logistic, StudentT

_CPU = torch.device("cpu")


def spread_of(spec: Noise, device: torch.device = _CPU) -> Spread:
    """The noise distribution that a spec names, for values on a device."""
    if spec.pixel_scales is None:
        return _of_kind(spec)
    return PerPixel(_of_kind(spec), relative(spec.pixel_scales).to(device))


def _of_kind(spec: Noise) -> Spread:
    match spec:
        case GaussianSpread():
            return Gaussian()
        case LaplaceSpread():
            return Laplace()
        case LogisticSpread():
            return Logistic()
        case StudentTSpread():
            return StudentT(spec.degrees_of_freedom)
        case GaussianMixtureSpread():
            return GaussianMixture(spec.components)
        case _:
            assert_never(spec)
