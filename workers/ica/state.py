"""Where a fit stands between two E-steps: a value that goes in and comes out, kept as tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from workers.ica.priors import Laplace, Mixture, Prior

# Codes of priors in a stored state; new ones go to the end.
_KINDS = ("laplace", "logistic", "student_t", "bimodal", "mixture", "gaussian")


@dataclass(frozen=True, slots=True)
class State:
    """Between two E-steps.

    ``mixing`` (X, Z) is the next A to look at, in the coordinates of the fit (principal ones for
    noise-free data); ``noise_variance`` is γ²; ``sigma`` the stage's spread. ``points`` and
    ``changes`` (k, X·Z) are the memory of Anderson's or SQUAREM's extrapolation, ``base`` (X, Z)
    the last accepted A, from which ``change`` led to ``mixing``, with ``evidence`` there;
    ``halvings`` counts how often that change was shortened. ``turn`` counts E-steps in the stage,
    ``iteration`` in all. ``residual`` is the last one; ``is_rough`` that FastICA, which it
    started from, had not converged. ``sweeps`` of EP are made from cold in each E-step.
    """

    stage: int
    turn: int
    iteration: int
    mixing: Tensor
    noise_variance: float
    sigma: float
    priors: tuple[Prior, ...]
    points: Tensor
    changes: Tensor
    base: Tensor
    change: Tensor
    evidence: float
    halvings: int
    residual: float
    is_rough: bool
    sweeps: int

    def tensors(self) -> dict[str, Tensor]:
        """All of it as tensors, by name."""
        kept: dict[str, Tensor] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                kept[field.name] = value
            elif field.name == "priors":
                kept[field.name] = prior_table(value)
            else:
                kept[field.name] = torch.tensor(value, dtype=torch.float64)
        return kept

    @classmethod
    def of(cls, kept: Mapping[str, Tensor]) -> "State":
        """The inverse of :meth:`tensors`."""
        return cls(
            stage=int(kept["stage"]),
            turn=int(kept["turn"]),
            iteration=int(kept["iteration"]),
            mixing=kept["mixing"],
            noise_variance=float(kept["noise_variance"]),
            sigma=float(kept["sigma"]),
            priors=priors_in(kept["priors"]),
            points=kept["points"],
            changes=kept["changes"],
            base=kept["base"],
            change=kept["change"],
            evidence=float(kept["evidence"]),
            halvings=int(kept["halvings"]),
            residual=float(kept["residual"]),
            is_rough=bool(kept["is_rough"]),
            sweeps=int(kept["sweeps"]),
        )


def prior_table(priors: tuple[Prior, ...]) -> Tensor:
    """A row for each prior: code, number of parts, then the parts' weights, means, variances."""
    widest = max(len(prior.weights) if isinstance(prior, Mixture) else 1 for prior in priors)
    table = torch.zeros((len(priors), 2 + 3 * widest), dtype=torch.float64)
    for row, prior in zip(table, priors, strict=True):
        row[0] = _KINDS.index(prior.name)
        match prior:
            case Laplace():
                row[1], row[2] = 1, prior.width
            case Mixture():
                parts = [*prior.weights, *prior.means, *prior.variances]
                row[1] = len(prior.weights)
                row[2 : 2 + len(parts)] = torch.tensor(parts, dtype=torch.float64)
            case _:
                raise TypeError(f"{prior!r} cannot be kept in a state")
    return table


def priors_in(table: Tensor) -> tuple[Prior, ...]:
    """The inverse of :func:`prior_table`."""
    priors: list[Prior] = []
    for code, count, *numbers in table.tolist():
        kind, k = _KINDS[int(code)], int(count)
        if kind == "laplace":
            priors.append(Laplace(numbers[0]))
        else:
            weights, means, variances = (tuple(numbers[i * k : (i + 1) * k]) for i in range(3))
            priors.append(Mixture(kind, weights, means, variances))
    return tuple(priors)
