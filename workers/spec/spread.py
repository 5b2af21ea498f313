"""The spread p(y|x): which noise, how much of it, and how that changes over the run."""

from typing import Annotated, Literal

from pydantic import Field

from workers.spec.base import SpecModel

SCALE_MIN, SCALE_MAX = 1e-4, 1e3


class ScaleSchedule(SpecModel):
    """Moves the spread's standard deviation from ``initial_scale`` to ``scale``, then holds it.

    With progress u = epoch / until_epoch in [0, 1]: ``linear`` a + (b − a)u, ``cosine``
    b + (a − b)(1 + cos πu)/2, ``geometric`` a·(b/a)^u.
    """

    kind: Literal["linear", "cosine", "geometric"]
    initial_scale: float = Field(ge=SCALE_MIN, le=SCALE_MAX)
    """Standard deviation at the first step."""
    until_epoch: int = Field(ge=1, le=100_000)
    """The epoch from which the scale is constant."""


class FixedSpread(SpecModel):
    """What the fixed spreads share: y = x + k with independent noise k in every dimension."""

    scale: float = Field(default=0.5, ge=SCALE_MIN, le=SCALE_MAX)
    """Standard deviation of the noise in each dimension, for every kind of noise."""
    schedule: ScaleSchedule | None = None
    """How the scale gets to its value; null holds it constant."""


class GaussianSpread(FixedSpread):
    """Gaussian noise, k ~ N(0, scale² I)."""

    kind: Literal["gaussian"]


class LaplaceSpread(FixedSpread):
    """Laplace noise, p(k) = e^(−|k|/b)/2b with b = scale/√2."""

    kind: Literal["laplace"]


SpreadSpec = Annotated[GaussianSpread | LaplaceSpread, Field(discriminator="kind")]
