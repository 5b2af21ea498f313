"""Encoders that are fitted anew to a decoder, as a job of its own."""

from typing import Literal

from pydantic import Field

from workers.spec.network import MlpNetwork, NetworkSpec
from workers.spec.quality import ReferenceScales


class RefitEncoder(ReferenceScales):
    """Encoders fitted anew to the decoder of a checkpoint, one at each reference scale.

    A fork of a job with a decoder, from weights. The decoder stays; the held-out log-likelihood at
    each scale is bounded, and each encoder is a checkpoint.
    """

    kind: Literal["refit_encoder"]
    network: NetworkSpec = MlpNetwork(kind="mlp")
    """Encoder and decoder, which stay those of the checkpoint."""
    log_std_bound: float = Field(default=8.0, gt=0.0, le=20.0)
    """The log of the posterior's standard deviation is clamped to ± this."""
