"""Which measures of quality a run takes, and when."""

from typing import Literal

from pydantic import Field

from workers.spec.base import SpecModel


class Quality(SpecModel):
    """Samples against held-out data, by measures that do not depend on the noise of training.

    Distances are those between coordinates along the training data's leading principal components.
    """

    at: Literal["end", "checkpoints"] = "end"
    """After the last epoch only, or with every regular checkpoint too."""
    samples: int = Field(default=5000, ge=100, le=50_000)
    """Samples that are drawn; the reference is as many of the held-out data, or all of them."""
    components: int = Field(default=64, ge=1, le=512)
    """Principal components that make the features."""
