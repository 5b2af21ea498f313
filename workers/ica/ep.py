r"""The E-step: expectation propagation for x = Az + √v·N(0, I) with independent sources z.

Everything is a function of the projection s = Wx, W = (AᵀA)⁻¹Aᵀ, for which x says
N(s; z, C), C = v(AᵀA)⁻¹. Sites e^(β_i z_i − π_i z_i²/2) stand for the priors. In place of the
textbook's V = (AᵀA/v + Π)⁻¹, m = V(Aᵀx/v + β), it is

    V = (C⁻¹ + Π)⁻¹ by Z rank-one updates of C,   m = s + V(β − Πs),

which loses no digits as v → 0 and is right at v = 0 (V = 0, m = s). A sweep forms cavities
v_c = V_ii/(1 − π_i V_ii), m_c = (m_i − V_ii β_i)/(1 − π_i V_ii) and, from the tilted
distribution's slope g and curvature c (see priors), π = c/(1 − v_c c), β = g(1 + π v_c) + π m_c.
The first sites come from the cavities N(s_i, C_ii), which need no matrix of their own.

At the fixed point the score of the likelihood is ψ = C⁻¹(s − m) = Πm − β, and its gradient along
A(I + E) is G = mean of ψmᵀ + ΠV, minus I: nothing is divided by v.

Layout (Z, N): one row per source, so every step is a few operations on long vectors.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.ica.priors import Priors, Tilted

_LOG_2_PI = math.log(2 * math.pi)
_DAMPING = 0.5  # of sites whose precision may be negative, after the first
_FLOOR = 0.1  # least 1 + π·V that an update may leave
_LEAST_SHARE = 0.05  # of a cavity's precision in V's; less is no cavity


@dataclass(frozen=True, slots=True)
class Sites:
    """Precisions π and shifts β of the Gaussian sites, (Z, N) each."""

    precision: Tensor
    shift: Tensor


@dataclass(frozen=True, slots=True)
class Posterior:
    """Means (Z, N), covariances V (Z, Z, N), log evidence of s (N), and the sites behind them.

    ``curvature`` (Z, N) is how the score ψ = Πm − β grows with s, c = π − π²V_ii for noise that
    is small or uncorrelated. ``moved`` is how far the last sweep moved the means, (Z, N).
    """

    mean: Tensor
    covariance: Tensor
    log_evidence: Tensor
    sites: Sites
    curvature: Tensor
    moved: Tensor


def posterior(
    s: Tensor, covariance: Tensor, priors: Priors, sweeps: int, sites: Sites | None = None
) -> Posterior:
    """EP for projections ``s`` (Z, N) with noise ``covariance`` C (Z, Z), positive definite.

    Without ``sites`` it starts cold. One sweep is enough where the noise is small against the
    sources, as the sites are weak there.
    """
    centre, cavity_variance = s, covariance.diagonal()[:, None].expand_as(s)
    tilted = priors.tilted(centre, cavity_variance)
    if sites is None:
        sites = _sites(tilted, centre, cavity_variance)
    mean, v, log_det = _gaussian(s, covariance, sites, priors.is_log_concave)
    moved = torch.zeros_like(s)
    for _ in range(sweeps):
        centre, cavity_variance = _cavity(mean, v, sites)
        tilted = priors.tilted(centre, cavity_variance)
        sites = _matched(tilted, centre, cavity_variance, sites, priors.is_log_concave)
        before = mean
        mean, v, log_det = _gaussian(s, covariance, sites, priors.is_log_concave)
        moved = mean - before
    log_c = _log_site_scale(tilted, centre, cavity_variance, sites)
    pull = torch.addcmul(sites.shift, sites.precision, s, value=-1)
    # log ∫ N(s; z, C)·Π e^(βz − πz²/2) dz
    exponent = (sites.shift + pull).mul_(s).addcmul_(pull, mean - s).sum(0).mul_(0.5)
    log_evidence = log_c.sum(0).add_(exponent).add_(log_det, alpha=-0.5)
    variance, precision = v.view(-1, v.shape[-1])[:: len(v) + 1], sites.precision
    curvature = torch.addcmul(precision, precision.square(), variance, value=-1)
    return Posterior(mean, v, log_evidence, sites, curvature, moved)


def point(s: Tensor, priors: Priors) -> Posterior:
    """The posterior without noise, C = 0: z is s, and the sites are the priors' scores."""
    tilted = priors.tilted(s, torch.zeros_like(s))
    nothing = torch.zeros_like(s)
    v = s.new_zeros(()).expand(len(s), *s.shape)
    sites = Sites(nothing, tilted.slope)  # ψ = −β: the score is minus the slope
    return Posterior(s, v, tilted.log_z.sum(0), sites, tilted.curvature, nothing)


def _cavity(mean: Tensor, v: Tensor, sites: Sites) -> tuple[Tensor, Tensor]:
    variance = v.view(-1, v.shape[-1])[:: len(v) + 1]
    share = torch.addcmul(torch.ones_like(mean), sites.precision, variance, value=-1)
    share.clamp_min_(_LEAST_SHARE).reciprocal_()
    centre = torch.addcmul(mean, variance, sites.shift, value=-1).mul_(share)
    return centre, variance * share


def _sites(tilted: Tilted, centre: Tensor, variance: Tensor) -> Sites:
    left = torch.addcmul(torch.ones_like(centre), variance, tilted.curvature, value=-1)
    left.clamp_min_(torch.finfo(left.dtype).eps)  # tilted variance over the cavity's
    precision = tilted.curvature / left
    return Sites(precision, tilted.slope.div(left).addcmul_(precision, centre))


def _matched(
    tilted: Tilted, centre: Tensor, variance: Tensor, before: Sites, is_log_concave: bool
) -> Sites:
    sites = _sites(tilted, centre, variance)
    if is_log_concave:
        return Sites(sites.precision.clamp_min_(0), sites.shift)
    return Sites(
        torch.lerp(before.precision, sites.precision, _DAMPING),
        torch.lerp(before.shift, sites.shift, _DAMPING),
    )


def _gaussian(
    s: Tensor, covariance: Tensor, sites: Sites, is_log_concave: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, covariance V and log|I + CΠ|.

    Site precisions that are too negative for V are raised to what it bears, in place: to leave
    such sites out would make the fit's objective jump.
    """
    v = covariance[:, :, None]
    growth = torch.ones_like(s[0])
    for i in range(len(s)):
        precision = sites.precision[i]
        factor = torch.addcmul(torch.ones_like(growth), precision, v[i, i])
        if not is_log_concave:
            precision.copy_(torch.maximum(precision, (_FLOOR - 1) / v[i, i]))
            factor.clamp_min_(_FLOOR)
        growth = growth * factor
        row = v[i].clone()
        scaled = row * (precision / factor)
        if i == 0:
            v = torch.addcmul(v, scaled[:, None], row[None], value=-1)
        else:
            v.addcmul_(scaled[:, None], row[None], value=-1)
    pull = torch.addcmul(sites.shift, sites.precision, s, value=-1)
    return (v * pull).sum(1).add_(s), v, growth.log_()


def _log_site_scale(tilted: Tilted, centre: Tensor, variance: Tensor, sites: Sites) -> Tensor:
    """log Ẑ less log ∫ N(z; m_c, v_c)·e^(βz − πz²/2) dz."""
    growth = torch.addcmul(torch.ones_like(centre), sites.precision, variance)
    half = torch.addcmul(sites.shift, sites.precision, centre, value=-0.5).mul_(centre)
    half.addcmul_(variance, sites.shift.square(), value=0.5).div_(growth)
    return growth.log_().mul_(0.5).add_(tilted.log_z).sub_(half)
