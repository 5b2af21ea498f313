"""What a fit says while it runs, and in the end."""

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from workers.ica.align import Errors
from workers.ica.priors import Prior
from workers.ica.problem import Warned
from workers.ica.state import State


class Solution(Protocol):
    """A fitted model: ``mixing`` (X, Z), ``mean`` (X), γ², and one prior for each source."""

    @property
    def mixing(self) -> Tensor: ...  # noqa: D102

    @property
    def mean(self) -> Tensor: ...  # noqa: D102

    @property
    def noise_variance(self) -> float: ...  # noqa: D102

    @property
    def priors(self) -> tuple[Prior, ...]: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Iteration:
    """One E-step and what followed.

    ``log_evidence`` is the mean log p(y) in nats under the stage's objective, ``residual``
    ‖step‖/‖A‖, ``sigma`` the spread noise, ``width`` the sources' softening; ``errors`` are
    against the truth where that is known; ``seconds`` counts from the call of ``fit``.
    """

    number: int
    stage: int
    log_evidence: float
    residual: float
    sigma: float
    width: float
    noise_variance: float
    errors: Errors | None
    seconds: float
    state: State


@dataclass(frozen=True, slots=True)
class Fitted:
    """The end of a fit.

    ``mixing`` is (X, Z), ``log_evidence`` nats a datum, ``reason`` why it stopped.
    ``contradicted`` are the sources whose prior the data contradict: their columns may be wrong
    even where the evidence is high.
    """

    mixing: Tensor
    mean: Tensor
    noise_variance: float
    priors: tuple[Prior, ...]
    log_evidence: float
    iterations: int
    residual: float
    reason: Literal["converged", "iteration_limit"]
    warnings: tuple[Warned, ...]
    contradicted: tuple[int, ...]
    errors: Errors | None
    seconds: float

    @property
    def has_converged(self) -> bool:
        """Whether the residual fell below the tolerance."""
        return self.reason == "converged"
