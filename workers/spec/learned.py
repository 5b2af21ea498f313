"""A spread that is learned: a low-rank covariance, a transform of the mean, or both."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from workers.spec.base import SpecModel

Activation = Literal["elu", "relu", "leaky_relu", "tanh"]
_TOO_STEEP = {"selu": 1.76, "gelu": 1.13, "silu": 1.10, "swish": 1.10}


def _require_1_lipschitz(name: object) -> object:
    if isinstance(name, str) and name in _TOO_STEEP:
        raise PydanticCustomError(
            "activation_too_steep",
            "{name} has slopes up to {slope}, which would break the bound that keeps the transform "
            "invertible; choose elu, relu, leaky_relu or tanh",
            {"name": name, "slope": _TOO_STEEP[name]},
        )
    return name


class LowRankCovariance(SpecModel):
    """Noise k = Lη with L = I + (r − 1)QQᵀ, QᵀQ = I and r = √(1 + c²/scale²).

    η is the spread's own noise. On Gaussian noise this is the covariance scale²I + c²QQᵀ. Q is
    learned; the entropy does not depend on it.
    """

    kind: Literal["low_rank"]
    rank: int = Field(default=20, ge=1, le=1024)
    """R, the number of learned directions."""
    strength: float | None = Field(default=None, ge=1e-4, le=1e4)
    """c, the standard deviation that is added along each learned direction; null is 4 × the
    spread's scale."""
    components: int | None = Field(default=None, ge=1, le=4096)
    """Look for the directions among this many leading principal components of the training data
    only, so that pixels which never change are left out; null looks everywhere."""


class EqualEntropyCovariance(SpecModel):
    """The fair rival of a low-rank covariance: equal noise in all directions, of equal entropy.

    σ = scale·(1 + c²/scale²)^(R/2D). Nothing is learned.
    """

    kind: Literal["equal_entropy"]
    rank: int = Field(default=20, ge=1, le=1024)
    """R of the covariance that it stands beside."""
    strength: float | None = Field(default=None, ge=1e-4, le=1e4)
    """c of the covariance that it stands beside; null is 4 × the spread's scale."""


Covariance = LowRankCovariance | EqualEntropyCovariance


class _Transform(SpecModel):
    """What the mean transforms share."""

    blocks: int = Field(default=3, ge=1, le=16)
    """Residual blocks f_t(x) = x + g_t(x), one after the other."""
    coefficient: float = Field(default=0.9, gt=0.0, le=0.99)
    """Largest operator norm of every layer of g_t; below 1, so that f can be inverted."""
    activation: Annotated[Activation, BeforeValidator(_require_1_lipschitz)] = "elu"
    """The function between layers; none is steeper than 1."""
    normalise_gain: bool = False
    """Divide f by its mean gain E‖f(x) − f(x′)‖ / E‖x − x′‖ over the training data: a transform
    that only enlarges is a smaller noise and nothing else."""


class MlpTransform(_Transform):
    """Blocks of dense layers."""

    kind: Literal["mlp"]
    hidden: Annotated[tuple[Annotated[int, Field(ge=1, le=2048)], ...], Field(strict=False)] = (
        Field(default=(64, 64), min_length=1, max_length=8)
    )
    """Widths of a block's hidden layers."""


class ConvTransform(_Transform):
    """Blocks of 3×3 convolutions of stride 1 with zero padding, for pictures."""

    kind: Literal["conv"]
    channels: int = Field(default=16, ge=1, le=128)
    """Channels between a block's convolutions."""
    layers: int = Field(default=3, ge=2, le=8)
    """Convolutions in a block."""


MeanTransform = MlpTransform | ConvTransform


class LearnedSpread(SpecModel):
    """What of the spread is learned, and when.

    Rounds of learning come between epochs: `noise_steps` that make the divergence larger while the
    networks stay, then `encoder_steps` in which the encoder alone follows. A fork has none before
    its first epoch.
    """

    covariance: Annotated[Covariance, Field(discriminator="kind")] | None = None
    """Directions with more noise; null keeps the same noise in all."""
    mean_transform: Annotated[MeanTransform, Field(discriminator="kind")] | None = None
    """f in y = f(x) + k, an invertible residual network; null is f(x) = x."""
    ascend: Literal["cross_entropy", "kl"] = "cross_entropy"
    """What a round makes larger. The cross-entropy of the spread model is right where the noise
    does not mix up data, that is where `information_nats` stays at its limit. `kl` takes the
    information I(X; Y) off, over all pairs of a batch: for small data of few dimensions."""
    learning_rate: float = Field(default=1e-4, gt=0.0, le=10.0)
    """Step size of the noise's own Adam."""
    every_epochs: int = Field(default=10, ge=1, le=100_000)
    """Epochs from one round to the next. None comes after the last epoch."""
    first_epoch: int = Field(default=0, ge=0, le=100_000)
    """No round comes before this epoch, nor before the end of the warm-up."""
    noise_steps: int = Field(default=1000, ge=1, le=1_000_000)
    """Steps of the noise in a round."""
    encoder_steps: int = Field(default=100, ge=0, le=1_000_000)
    """Steps of the encoder alone at the end of a round."""
