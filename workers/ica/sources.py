"""What a fitted model says of data: posterior sources, reconstructions, and samples."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.ica.ep import point, posterior
from workers.ica.priors import Priors
from workers.ica.results import Solution

_CHUNK = 4096
_MOST_SWEEPS = 20


@dataclass(frozen=True, slots=True)
class Sources:
    """Posterior means and variances of the sources, (n, Z) each, float64."""

    mean: Tensor
    variance: Tensor


def infer(rows: Tensor, fitted: Solution) -> Sources:
    """The sources behind ``rows`` (n, X)."""
    w = torch.linalg.pinv(fitted.mixing)
    if not len(rows):
        return Sources(w.new_zeros((0, len(w))), w.new_zeros((0, len(w))))
    covariance = fitted.noise_variance * (w @ w.T)
    priors = Priors(fitted.priors)
    means, variances = [], []
    for part in torch.split(rows, _CHUNK):
        s = w @ (part.to(w).T - fitted.mean[:, None])
        if fitted.noise_variance == 0:
            found = point(s, priors)
        else:
            found = posterior(s, covariance, priors, _MOST_SWEEPS)
        means.append(found.mean.T)
        variances.append(found.covariance.diagonal())
    return Sources(torch.cat(means), torch.cat(variances))


def reconstruct(means: Tensor, fitted: Solution) -> Tensor:
    """The data (n, X) that sources (n, Z) make without noise."""
    return means @ fitted.mixing.T + fitted.mean


def sample(fitted: Solution, n: int, seed: int) -> NDArray[np.float64]:
    """``n`` draws from the model, (n, X), noise included."""
    generator = np.random.Generator(np.random.PCG64(seed))
    z = np.stack([prior.sample(n, generator) for prior in fitted.priors], 1)
    x = z @ fitted.mixing.numpy(force=True).T + fitted.mean.numpy(force=True)
    drawn: NDArray[np.float64] = x + math.sqrt(fitted.noise_variance) * generator.standard_normal(
        x.shape
    )
    return drawn
