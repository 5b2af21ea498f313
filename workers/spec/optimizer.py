"""The optimiser, its learning rate and the average of its weights."""

from typing import Annotated, Literal

from pydantic import Field

from workers.spec.base import SpecModel


class ConstantRate(SpecModel):
    """The learning rate stays as it is."""

    kind: Literal["constant"]


class CosineRate(SpecModel):
    """The learning rate falls along half a cosine to ``final_fraction`` of itself at the end."""

    kind: Literal["cosine"]
    final_fraction: float = Field(default=0.0, ge=0.0, le=1.0)
    """Last learning rate, as a fraction of the first."""


class StaircaseRate(SpecModel):
    """The learning rate is multiplied by ``factor`` after every ``every_epochs`` epochs."""

    kind: Literal["staircase"]
    every_epochs: int = Field(ge=1, le=100_000)
    """Epochs between two steps of the staircase."""
    factor: float = Field(default=0.5, gt=0.0, le=1.0)
    """What each step multiplies the learning rate by."""


RateSchedule = Annotated[ConstantRate | CosineRate | StaircaseRate, Field(discriminator="kind")]


class Optimizer(SpecModel):
    """Adam (weight decay as an L2 term) or AdamW (decoupled weight decay)."""

    kind: Literal["adam", "adamw"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0.0, le=10.0)
    """Step size of Adam."""
    betas: Annotated[
        tuple[Annotated[float, Field(ge=0.0, lt=1.0)], Annotated[float, Field(ge=0.0, lt=1.0)]],
        Field(strict=False),
    ] = (0.9, 0.999)
    """Decay rates of the running means of the gradient and of its square."""
    weight_decay: float = Field(default=0.0, ge=0.0, le=10.0)
    """Weight decay coefficient."""
    clip_norm: float | None = Field(default=100.0, gt=0.0, le=1e9)
    """Largest Euclidean norm of the whole gradient; null never clips."""
    schedule: RateSchedule = ConstantRate(kind="constant")
    """How the learning rate changes over the run."""
    ema_decay: float | None = Field(default=None, ge=0.0, lt=1.0)
    """Decay of an exponential moving average of the weights, which samples and evaluation then
    use; null uses the weights themselves."""
