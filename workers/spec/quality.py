"""Which measures of quality a run takes, and when."""

from typing import Annotated, Literal

from pydantic import Field

from workers.spec.base import SpecModel

FeatureName = Literal["efficientnet_lite0_40", "efficientnet_lite0_320", "inception_v3_fid"]


class Quality(SpecModel):
    """Samples against held-out data, by measures that do not depend on the noise of training.

    Distances are those between coordinates along the training data's leading principal components,
    and between the features of the networks that are named, for pictures.
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
