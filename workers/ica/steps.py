r"""From the sums of an E-step to the next A: the EM step, and the scoring step that is our default.

With G = score − I the gradient of the log evidence along A(I + E), the scoring step is

    A ← A(I + E) + D,  E = M⁻¹G,  D = (I − AW)·E[ymᵀ]·E[mmᵀ]⁻¹.

M is minus the expected second derivative for independent sources, in which only E_ij and E_ji
meet: ((h_ij, p_i p_j), (p_i p_j, h_ji)) with h_ij = E[c_i]·E[m_j²], p_i = E[ψ_i m_i], and
E[c_i m_i²] + p_i² for E_ii (as in quasi-Newton ICA, Zibulevsky 2003). D is for the directions
outside the span of A's columns, where x is noise alone. EM's own step shrinks in proportion to
v, which is why it freezes; this one has the same size at any v.
"""

import math

import torch
from torch import Tensor

from workers.ica.sums import Model, Sums

_LEAST = 0.1  # of an eigenvalue of M, so that misfit priors cannot turn the step around
_LONGEST = 0.3  # largest entry of E in one step
_LONGEST_LOG = 1.0  # largest change of log v in one step
_LEAST_NOISE = 1e-9  # of the mean variance of a dimension


def em_step(sums: Sums) -> Tensor:
    """E[yzᵀ]E[zzᵀ]⁻¹, the maximiser of the expected complete log likelihood."""
    mixing: Tensor = torch.linalg.solve(sums.zz, sums.ym, left=False)
    return mixing


def scoring_step(sums: Sums, model: Model) -> Tensor:
    """The change of A, (X, Z)."""
    z = model.mixing.shape[1]
    gradient = sums.score - torch.eye(z, dtype=torch.float64, device=sums.score.device)
    inside = _solve_pairs(sums, gradient)
    inside *= min(1.0, _LONGEST / inside.abs().max().clamp_min(1e-300).item())
    change = model.mixing @ inside
    if model.variance > 0 and model.mixing.shape[0] > z:
        outside = sums.ym - model.mixing @ (model.unmixing() @ sums.ym)
        change += torch.linalg.solve(sums.mm, outside, left=False)
    return change


def noise_step(sums: Sums, model: Model, scatter: Tensor, sigma: float) -> tuple[float, float]:
    """The next γ², and by how much its logarithm wanted to move.

    EM's own v = (tr E[yyᵀ] − 2 tr(AᵀE[ymᵀ]) + tr(AᵀA E[zzᵀ]))/X, lengthened by X/(X − Z): that
    is the share of the noise that is seen outside the span of A's columns.
    """
    x, z = model.mixing.shape
    a = model.mixing
    square = scatter.trace() - 2 * (a * sums.ym).sum() + ((a.T @ a) * sums.zz).sum()
    v = (square / x).clamp_min(1e-300).item()
    longer = x / max(x - z, 1)
    move = math.log(v / model.variance) * longer
    next_v = model.variance * math.exp(max(-_LONGEST_LOG, min(_LONGEST_LOG, move)))
    return max(next_v - sigma**2, _LEAST_NOISE * scatter.trace().item() / x), abs(move)


def _solve_pairs(sums: Sums, gradient: Tensor) -> Tensor:
    """M⁻¹G, pair by pair, with M's eigenvalues kept from vanishing."""
    h = sums.slope[:, None] * sums.mm.diagonal()[None, :]
    coupling = torch.outer(sums.pull, sums.pull)
    # Least eigenvalue of ((h, k), (k, h')) is (h + h')/2 − √((h − h')²/4 + k²).
    half_gap = (h - h.T).square().div_(4).add_(coupling.square()).sqrt_()
    least = (h + h.T) / 2 - half_gap
    h = h + (_LEAST - least).clamp_min(0)
    inside = (h.T * gradient - coupling * gradient.T) / (h * h.T - coupling.square())
    diagonal = gradient.diagonal() / (sums.bend + sums.pull.square()).clamp_min(_LEAST)
    inside.diagonal().copy_(diagonal)
    return inside
