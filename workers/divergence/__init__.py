r"""Spread f-divergences: closed forms where they exist, estimates with a standard error elsewhere.

Two distributions p and q without a common support, such as those of implicit models, have no useful
divergence. Spreading both with the same noise, p̃(y) = ∫ p(y|x) p(x) dx, gives densities that are
positive everywhere, and D(p̃ ‖ q̃) = 0 only for p = q where the noise is valid (section 2 of
*Spread Divergence*, Zhang et al., ICML 2020). With r = p̃/q̃, all in nats or without unit:

==========  =====================  =================================
kind        D(p̃ ‖ q̃)               range
==========  =====================  =================================
kl          ∫ p̃ log r              [0, ∞]
reverse_kl  ∫ q̃ log(1/r)           [0, ∞]
js          ½ KL(p̃‖m) + ½ KL(q̃‖m)  [0, log 2], m = (p̃ + q̃)/2
tv          ½ ∫ |p̃ − q̃|            [0, 1]
hellinger2  1 − ∫ √(p̃ q̃)           [0, 1]; some define twice this
chi2        ∫ (p̃ − q̃)²/q̃           [0, ∞]
==========  =====================  =================================

Everything is float64 and a pure function of its arguments.
"""

from workers.divergence.between import between
from workers.divergence.discrete import discrete_divergence, spread_discrete, uniform_channel
from workers.divergence.estimate import Density, Estimate, Kind, estimate_divergence
from workers.divergence.gaussian import LowRankGaussian
from workers.divergence.laplace import ProductLaplace
from workers.divergence.line import em_step, model_noise_optimum
from workers.divergence.validity import require_valid_noise

__all__ = [
    "Density",
    "Estimate",
    "Kind",
    "LowRankGaussian",
    "ProductLaplace",
    "between",
    "discrete_divergence",
    "em_step",
    "estimate_divergence",
    "model_noise_optimum",
    "require_valid_noise",
    "spread_discrete",
    "uniform_channel",
]
