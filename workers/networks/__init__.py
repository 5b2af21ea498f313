"""Encoders and decoders: dense and convolutional, one latent-variable model around them."""

from workers.networks.autoencoder import (
    Autoencoder,
    Network,
    Posterior,
    activations,
    parameter_count,
    value_count,
)

__all__ = [
    "Autoencoder",
    "Network",
    "Posterior",
    "activations",
    "parameter_count",
    "value_count",
]
