r"""The delta model of a line through 0, x = θz with z ~ N(0, 1), where everything is exact.

With data of covariance Σx = θ_p θ_pᵀ in place of a sample, the spread distribution of the model is
N(0, θθᵀ + σ²I). Spreading the data too makes θ = ±θ_p the optimum. Noise on the model alone, as in
equation 12 of *Spread Divergence*, is probabilistic PCA, whose optimum is too short.
"""

import torch
from torch import Tensor


def model_noise_optimum(true: Tensor, variance: float) -> Tensor:
    """θ = θ_p √(1 − σ²/‖θ_p‖²), the optimum where only the model is spread; 0 below the noise."""
    share = 1 - variance / float(true.square().sum())
    shortened: Tensor = true * max(share, 0.0) ** 0.5
    return shortened


def em_step(theta: Tensor, covariance: Tensor, variance: float) -> Tensor:
    """One EM step for θ with data of a covariance (D×D) and noise σ²I on the model.

    With m = ‖θ‖² + σ², E[z|x] = θᵀx/m and Var[z|x] = σ²/m:
    θ ← (Σxθ/m) / (σ²/m + θᵀΣxθ/m²). As σ² → 0 it returns what is along θ: it freezes.
    """
    m = theta @ theta + variance
    moved = covariance @ theta
    return (moved / m) / (variance / m + theta @ moved / m**2)


def log_evidence(theta: Tensor, covariance: Tensor, variance: float) -> float:
    """E log N(x; 0, θθᵀ + σ²I) in nats for data of a covariance, which EM never lowers."""
    dimensions = len(theta)
    model = torch.outer(theta, theta) + variance * torch.eye(dimensions, dtype=theta.dtype)
    trace = torch.linalg.solve(model, covariance).diagonal().sum()
    return -float(trace + torch.logdet(2 * torch.pi * model)) / 2
