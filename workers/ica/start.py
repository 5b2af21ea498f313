"""Where a fit starts: principal components, FastICA on them, or a random rotation of them."""

import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from workers.ica.failures import Unfit
from workers.ica.shard import Shard

Contrast = Literal["logcosh", "exp"]

_RANK = 1e-10  # of the largest eigenvalue; less is rounding
_SHARE = 1e-3  # of an eigenvalue that the noise must leave to the signal
_FASTICA_STEPS = 400
_FASTICA_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Components:
    """The leading Z principal components: ``basis`` (X, Z) and the standard deviations (Z) of the
    signal along them, without the noise; ``rest`` is the mean variance of the X − Z others.
    """

    basis: Tensor
    deviations: Tensor
    rest: float


def principal(scatter: Tensor, count: int, noise_variance: float | None) -> Components:
    """Principal components of data with mean square ``scatter`` (X, X).

    Raises Unfit where there are not that many.
    """
    x = len(scatter)
    if count > x:
        raise Unfit(
            "too_many_components",
            f"{count} components were asked for, but the data have {x} dimensions;"
            f" ask for at most {x}.",
        )
    constant = (scatter.diagonal() <= 0).nonzero().flatten().tolist()
    if constant:
        raise Unfit(
            "constant_columns",
            f"Columns {constant} of the data are constant; leave them out.",
        )
    values, vectors = torch.linalg.eigh(scatter)
    values, vectors = values.flip(0), vectors.flip(1)
    rank = int((values > _RANK * values[0]).sum())
    if rank < count:
        raise Unfit(
            "rank_deficient",
            f"The data vary in {rank} directions only; ask for at most {rank} components.",
        )
    rest = values[count:].clamp_min(0).mean().item() if count < x else 0.0
    rest = rest if rest > _RANK * values[0].item() else 0.0
    noise = rest if noise_variance is None else noise_variance
    signal = torch.maximum(values[:count] - noise, _SHARE * values[:count])
    return Components(vectors[:, :count], signal.sqrt(), rest)


@dataclass(frozen=True, slots=True)
class Baseline:
    """FastICA's mixing (X, Z), and whether it converged."""

    mixing: Tensor
    has_converged: bool


def fastica_baseline(
    shard: Shard, components: Components, seed: int, contrast: Contrast = "logcosh"
) -> Baseline:
    """scikit-learn's FastICA on principal components, whitened without the noise's share."""
    # It takes longer to import than torch, and every service and worker imports this module.
    from sklearn.decomposition import fastica
    from sklearn.exceptions import ConvergenceWarning

    white = torch.cat(
        [(components.basis.T @ y).T / components.deviations for y in _chunks(shard)]
    ).numpy(force=True)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ConvergenceWarning)
        _, unmixing, _ = fastica(
            white,
            whiten=False,
            fun=contrast,
            random_state=seed % 2**32,
            max_iter=_FASTICA_STEPS,
            tol=_FASTICA_TOLERANCE,
        )
    rotation = torch.linalg.pinv(torch.as_tensor(unmixing, device=components.basis.device))
    return Baseline((components.basis * components.deviations) @ rotation, not said)


def random_start(components: Components, seed: int) -> Tensor:
    """Principal components under a random rotation, (X, Z)."""
    z = len(components.deviations)
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn((z, z), generator=generator, dtype=torch.float64))
    mixing: Tensor = (components.basis * components.deviations) @ rotation.to(components.basis)
    return mixing


def _chunks(shard: Shard) -> list[Tensor]:
    return list(shard.chunks(8192, torch.float64))
