"""The spread p(y|x): which noise, how much of it, and how that changes over the run."""

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from workers.spec.base import SpecModel

SCALE_MIN, SCALE_MAX = 1e-4, 1e4


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


class ScaleStep(SpecModel):
    """A scale, and how long it holds."""

    scale: float = Field(ge=SCALE_MIN, le=SCALE_MAX)
    """Standard deviation in each dimension."""
    until_epoch: int = Field(ge=1, le=100_000)
    """The epoch at which the next one begins."""


def _rising(steps: tuple[ScaleStep, ...]) -> tuple[ScaleStep, ...]:
    if any(a.until_epoch >= b.until_epoch for a, b in pairwise(steps)):
        raise PydanticCustomError("steps_do_not_rise", "must have rising until_epoch")
    return steps


class ScaleSteps(SpecModel):
    """Holds one scale after another, then ``scale``: what population-based training finds."""

    kind: Literal["steps"]
    steps: Annotated[tuple[ScaleStep, ...], Field(strict=False), AfterValidator(_rising)] = Field(
        min_length=1, max_length=1000
    )
    """The scales before the last one, in their order."""

    @property
    def until_epoch(self) -> int:
        """The epoch from which the scale is constant."""
        return self.steps[-1].until_epoch


class FixedSpread(SpecModel):
    """What the fixed spreads share: y = x + k with independent noise k in every dimension."""

    scale: float = Field(default=0.5, ge=SCALE_MIN, le=SCALE_MAX)
    """Standard deviation of the noise in each dimension, for every kind of noise."""
    schedule: Annotated[ScaleSchedule | ScaleSteps, Field(discriminator="kind")] | None = None
    """How the scale gets to its value; null holds it constant."""
    pixel_scales: (
        Annotated[tuple[Annotated[float, Field(ge=1e-3, le=1e3)], ...], Field(strict=False)] | None
    ) = Field(default=None, min_length=1, max_length=65_536)
    """Relative scales of the noise in each dimension (pictures row by row, colours last), one for
    each. Their root mean square is made 1, so that `scale` is the standard deviation over all of
    them. null: the same in every dimension."""


class GaussianSpread(FixedSpread):
    """Gaussian noise, k ~ N(0, scale² I)."""

    kind: Literal["gaussian"]


class LaplaceSpread(FixedSpread):
    """Laplace noise, p(k) = e^(−|k|/b)/2b with b = scale/√2."""

    kind: Literal["laplace"]


class LogisticSpread(FixedSpread):
    """Logistic noise, p(k) = e^(−k/s)/s(1 + e^(−k/s))² with s = scale·√3/π."""

    kind: Literal["logistic"]


def _require_variance(degrees_of_freedom: float) -> float:
    if degrees_of_freedom <= 2:
        raise PydanticCustomError(
            "student_t_without_variance",
            "must be above 2: a Student-t with fewer has no standard deviation, which scale is",
        )
    return degrees_of_freedom


class StudentTSpread(FixedSpread):
    """Student-t noise with ν degrees of freedom, scaled to the standard deviation `scale`."""

    kind: Literal["student_t"]
    degrees_of_freedom: Annotated[float, AfterValidator(_require_variance)] = Field(
        default=4.0, le=1e6, json_schema_extra={"exclusiveMinimum": 2}
    )
    """ν: the lower, the heavier the tails."""


class MixtureComponent(SpecModel):
    """One Gaussian of a scale mixture."""

    weight: float = Field(gt=0.0, le=1e6)
    """Its share of the values, relative to the other weights."""
    relative_scale: float = Field(ge=1e-3, le=1e3)
    """Its standard deviation, relative to the other components'."""


class GaussianMixtureSpread(FixedSpread):
    """A scale mixture of Gaussians, k ~ Σ w_i N(0, τ_i²), whose standard deviation is `scale`."""

    kind: Literal["gaussian_mixture"]
    components: Annotated[tuple[MixtureComponent, ...], Field(strict=False)] = Field(
        default=(
            MixtureComponent(weight=0.8, relative_scale=1.0),
            MixtureComponent(weight=0.2, relative_scale=3.0),
        ),
        min_length=1,
        max_length=16,
    )
    """The Gaussians. Only the ratios of their weights and of their scales matter."""


Noise = GaussianSpread | LaplaceSpread | LogisticSpread | StudentTSpread | GaussianMixtureSpread
# Noise of bounded support has no density beyond it. Only refusals of these are worded: what is no
# member of the union is refused anyway, and a test examines every member's density and
# characteristic function by workers.divergence.require_valid_noise.
_BOUNDED = ("uniform", "triangular", "arcsine", "semicircle", "truncated_normal")


def _require_valid_spread(value: Any) -> Any:
    """Names the reason where a kind is unknown because it can be none."""
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind in _BOUNDED:
        raise PydanticCustomError(
            "no_valid_spread",
            "must not be {kind} noise, which is no valid spread: its density is not positive "
            "everywhere; choose gaussian, laplace, logistic, student_t or gaussian_mixture",
            {"kind": kind},
        )
    return value


SpreadSpec = Annotated[Noise, Field(discriminator="kind"), BeforeValidator(_require_valid_spread)]
