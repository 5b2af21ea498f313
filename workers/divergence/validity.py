r"""Whether noise is a valid spread: D(p̃ ‖ q̃) = 0 must imply p = q.

For noise that is added, the density must be positive everywhere and the characteristic function
φ(ω) = E e^{iωk} non-zero but for countably many ω (section 2 of *Spread Divergence*, Zhang et al.,
ICML 2020). Both are examined here on grids: what is found zero is refused; what falls between two
points of a grid is not found.

This is for noise whose density is given. A spec names noise, and the kinds that it can name are a
closed union (workers/spec/spread.py), which refuses known bad ones by name without a density to
look at; a test examines each kind of the union here.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from workers.errors import InvalidSpread

_POINTS = 20_001


def require_valid_noise(
    name: str,
    scale: float,
    density: Callable[[Tensor], Tensor],
    characteristic: Callable[[Tensor], Tensor],
    reach: float = 30.0,
) -> None:
    """Raise InvalidSpread, which says why, where noise in one dimension is no valid spread.

    ``density`` and ``characteristic`` (real, of symmetric noise) take float64 arrays; the grids go
    to ``reach`` standard deviations, where a Gaussian density is e^−450, and to ``reach``/scale.
    """
    if not scale > 0:
        raise InvalidSpread(f"{name} noise of scale {scale:g} is no valid spread: choose above 0")
    grid = torch.linspace(-reach, reach, _POINTS, dtype=torch.float64)
    values = density(grid * scale)
    if not bool((values > 0).all()):
        raise InvalidSpread(
            f"{name} noise is no valid spread: its density is not positive everywhere; choose "
            "gaussian, laplace, logistic, student_t or gaussian_mixture"
        )
    frequencies = torch.linspace(0, reach, _POINTS, dtype=torch.float64) / scale
    magnitudes = characteristic(frequencies).abs()
    is_zero = magnitudes == 0
    if bool((is_zero[:-1] & is_zero[1:]).any()):
        raise InvalidSpread(
            f"{name} noise is no valid spread: its characteristic function is zero on an interval; "
            "choose gaussian, laplace, logistic, student_t or gaussian_mixture"
        )
