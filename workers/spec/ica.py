"""The trainer of linear ICA: methods, priors, starts."""

from typing import Annotated, Literal

from pydantic import Field

from workers.spec.base import SpecModel

COMPONENTS_MAX = 256
DIMENSIONS_MAX = 8192

_Entry = Annotated[float, Field(ge=-1e12, le=1e12)]
_Row = Annotated[tuple[_Entry, ...], Field(strict=False, min_length=1, max_length=COMPONENTS_MAX)]


class AutoPrior(SpecModel):
    """One prior for each source, chosen by the evidence of the sources that the fit sees."""

    kind: Literal["auto"]


class LaplacePrior(SpecModel):
    """p(z) = e^(−√2|z|)/√2, the paper's."""

    kind: Literal["laplace"]


class LogisticPrior(SpecModel):
    """The logistic density of unit variance: tails between a Gaussian's and a Laplace's."""

    kind: Literal["logistic"]


class StudentTPrior(SpecModel):
    """Student's t, scaled to unit variance: heavy tails."""

    kind: Literal["student_t"]
    degrees: float = Field(default=5.0, ge=2.1, le=100.0)
    """Degrees of freedom; the variance is finite for more than 2."""


class BimodalPrior(SpecModel):
    """Two narrow Gaussians side by side: sub-Gaussian, such as uniform sources are."""

    kind: Literal["bimodal"]


PriorSpec = Annotated[
    AutoPrior | LaplacePrior | LogisticPrior | StudentTPrior | BimodalPrior,
    Field(discriminator="kind"),
]


class Ica(SpecModel):
    """Linear ICA, x = Az + mean + γ·N(0, I) with independent sources z (section 4.1 of the paper).

    FastICA's answer is always computed too and reported beside it.
    """

    kind: Literal["ica"]
    components: int | None = Field(default=None, ge=1, le=COMPONENTS_MAX)
    """Number of sources; null chooses it by the evidence of data that the fit has not seen."""
    method: Literal["ep", "paper", "em", "fastica"] = "ep"
    """``ep``: an accelerated fit by expectation propagation; ``paper``: the published recipe,
    spread EM by importance sampling, for fidelity, about a thousand times slower; ``em``: plain EM
    without spread noise, which freezes as the noise gets small; ``fastica``: the baseline alone."""
    outer: Literal["scoring", "anderson"] = "scoring"
    """The loop around the E-step of ``ep``: quasi-Newton steps without spread noise, or Anderson
    acceleration of spread EM."""
    noise_variance: float | None = Field(default=None, ge=0.0, le=1e12)
    """γ², the variance of the data's noise in each dimension; null estimates it."""
    prior: PriorSpec = AutoPrior(kind="auto")
    """The density of the sources, all of variance 1."""
    start: Literal["fastica", "random", "given"] = "fastica"
    """Where A begins: at the best of FastICA's answers, at a random rotation of the principal
    components, or at ``mixing``."""
    mixing: Annotated[tuple[_Row, ...], Field(strict=False)] | None = Field(
        default=None, min_length=1, max_length=DIMENSIONS_MAX
    )
    """The A to begin from where ``start`` is ``given``: a row for each dimension of the data."""
    rescale: Literal["contradicted", "always", "never"] = "contradicted"
    """Which columns of A are scaled in the end so that their source has unit posterior variance:
    those whose prior the data contradict, all, or none."""
    tolerance: float = Field(default=1e-6, ge=1e-12, le=0.1)
    """The residual, the length of a step over that of A, at which the fit has converged."""
    max_iterations: int | None = Field(default=None, ge=1, le=100_000)
    """Most iterations of each stage; null is 300, and the published 2000 of ``paper``."""
    importance_samples: int = Field(default=1000, ge=2, le=100_000)
    """Draws for each datum in an iteration of ``paper``."""
