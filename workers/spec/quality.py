"""Which measures of quality a run takes, and when."""

from typing import Annotated, Literal

from pydantic import Field

from workers.spec.base import SpecModel
from workers.spec.spread import SCALE_MAX, SCALE_MIN

FeatureName = Literal["efficientnet_lite0_40", "efficientnet_lite0_320", "inception_v3_fid"]


_Scale = Annotated[float, Field(ge=SCALE_MIN, le=SCALE_MAX)]


class ReferenceScales(SpecModel):
    """The held-out log-likelihood of the decoder under noise that is the same for every model.

    The decoder stays; at each scale an encoder begins anew, is fitted, and bounds the likelihood.
    """

    noise: Literal["gaussian", "laplace"] = "gaussian"
    """The reference noise, whatever the model was trained with."""
    scales: Annotated[tuple[_Scale, ...], Field(strict=False)] = Field(
        default=(0.2, 0.4, 0.8), min_length=3, max_length=16
    )
    """Standard deviations of the noise, at least three: one alone misleads."""
    steps: int = Field(default=2000, ge=1, le=1_000_000)
    """Steps of Adam in which each encoder is fitted."""
    batch_size: int = Field(default=100, ge=1, le=65_536)
    """Data in one step; all of them where there are fewer."""
    learning_rate: float = Field(default=1e-3, gt=0.0, le=1.0)
    """Step size of Adam."""
    importance_samples: int = Field(default=500, ge=10, le=10_000, multiple_of=10)
    """Draws for each datum in the bound; more make it tighter. The bound with a tenth of them
    stands beside it."""
    rows: int = Field(default=500, ge=20, le=50_000)
    """Held-out data that the likelihood is a mean over, or all of them."""


class Quality(SpecModel):
    """Samples against held-out data, by measures that do not depend on the noise of training.

    Distances are those between coordinates along the training data's leading principal components,
    and between the features of the networks that are named, for pictures. Scores of classifiers
    are not among them: they see samples alone, and never the data.
    """

    at: Literal["end", "checkpoints"] = "end"
    """After the last epoch only, or with every regular checkpoint too."""
    samples: int = Field(default=5000, ge=100, le=50_000)
    """Samples that are drawn; the reference is as many of the held-out data, or all of them."""
    components: int = Field(default=64, ge=1, le=512)
    """Principal components that make the features."""
    features: Annotated[tuple[FeatureName, ...], Field(strict=False)] = Field(
        default=(), max_length=3
    )
    """Networks whose features are compared besides, if their weights are installed.
    ``efficientnet_lite0_40`` and ``_320`` are 40 and 320 features of EfficientNet-Lite0 after its
    blocks 5 and 16; the first is less biased by few samples, the second sees more.
    ``inception_v3_fid`` has the 2048 features of the Fréchet Inception distance."""
    reference_scales: ReferenceScales | None = None
    """The held-out log-likelihood at fixed reference scales; null leaves it out, as it takes the
    time of fitting an encoder for each."""
