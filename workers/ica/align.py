"""An estimated mixing matrix against the true one: order and sign are free, scale is not."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Errors:
    """How far an aligned estimate is from the truth.

    ``relative`` is the mean of |Â − A|/|A| over the entries, which is for entries ±1: it has no
    mean for Gaussian ones. ``frobenius`` is ‖Â − A‖/‖A‖. ``angle_degrees`` is the mean angle of
    the columns, and ``amari`` the distance of Amari et al. (1996) in [0, 1], free of scale.
    """

    relative: float
    frobenius: float
    angle_degrees: float
    amari: float


def align(estimate: Tensor, truth: Tensor) -> Tensor:
    """``estimate`` (X, Z) with its columns in the truth's order and signs.

    The order maximises the sum of the columns' absolute cosines (Hungarian method).
    """
    from scipy.optimize import linear_sum_assignment  # slow to import, and rarely needed

    cosine = _cosines(estimate, truth)
    rows, columns = linear_sum_assignment(-cosine.abs().numpy(force=True))
    return estimate[:, columns] * cosine[rows, columns].sign()


def errors(estimate: Tensor, truth: Tensor) -> Errors:
    """All errors of ``estimate`` (X, Z)."""
    aligned = align(estimate, truth)
    difference = aligned - truth
    cosine = _cosines(aligned, truth).diagonal().clamp(-1, 1)
    return Errors(
        relative=(difference.abs() / truth.abs()).mean().item(),
        frobenius=(difference.norm() / truth.norm()).item(),
        angle_degrees=torch.rad2deg(torch.arccos(cosine)).mean().item(),
        amari=amari(estimate, truth),
    )


def amari(estimate: Tensor, truth: Tensor) -> float:
    """Amari distance between 0, the same up to order, sign and scale, and 1."""
    z = truth.shape[1]
    if z == 1:
        return 0.0
    product = (torch.linalg.pinv(estimate) @ truth).abs()
    rows = product.sum(1) / product.amax(1) - 1
    columns = product.sum(0) / product.amax(0) - 1
    return float(rows.sum() + columns.sum()) / (2 * z * (z - 1))


def _cosines(estimate: Tensor, truth: Tensor) -> Tensor:
    left, right = truth / truth.norm(dim=0), estimate / estimate.norm(dim=0)
    cosines: Tensor = left.T @ right
    return cosines
