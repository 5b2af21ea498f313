"""Encoders and decoders."""

from typing import Annotated, Literal

from pydantic import Field

from workers.spec.base import SpecModel

Output = Literal["auto", "sigmoid", "identity"]


class LinearNetwork(SpecModel):
    """Affine encoder and decoder: x = Az + b, q(z|y) = N(Wy + c, diag s²)."""

    kind: Literal["linear"]
    latent_dim: int = Field(default=2, ge=1, le=4096)
    """Dimensions of the latent z."""
    output: Output = "auto"
    """The decoder's last function; auto is sigmoid for pictures and identity for vectors."""


class MlpNetwork(SpecModel):
    """Feed-forward encoder and decoder with LeakyReLU(0.01) between dense layers."""

    kind: Literal["mlp"]
    hidden: Annotated[tuple[Annotated[int, Field(ge=1, le=8192)], ...], Field(strict=False)] = (
        Field(default=(400, 400), min_length=1, max_length=8)
    )
    """Widths of the encoder's hidden layers; the decoder has them in reverse."""
    latent_dim: int = Field(default=64, ge=1, le=4096)
    """Dimensions of the latent z."""
    output: Output = "auto"
    """The decoder's last function; auto is sigmoid for pictures and identity for vectors."""


class ConvNetwork(SpecModel):
    """Convolutional encoder and decoder of pictures, every layer of stride 2, with ReLU between.

    Encoder: ``channels`` convolutions, then a dense layer. Decoder: a dense layer, transposed
    convolutions with the channels in reverse, the last of them with half the first number, and a
    convolution to the picture's own channels. Height and width must be divisible by 2 to the
    number of layers.
    """

    kind: Literal["conv"]
    channels: Annotated[tuple[Annotated[int, Field(ge=1, le=2048)], ...], Field(strict=False)] = (
        Field(default=(32, 64), min_length=1, max_length=8)
    )
    """Channels of the encoder's convolutions; each of them halves height and width."""
    kernel_size: Literal[3, 5] = 5
    """Height and width of every kernel in pixels."""
    batch_norm: bool = True
    """Batch normalisation after every convolution but the last; over several workers its
    statistics are those of the whole batch. Samples use the running statistics."""
    latent_dim: int = Field(default=64, ge=1, le=4096)
    """Dimensions of the latent z."""
    output: Output = "auto"
    """The decoder's last function; auto is sigmoid for pictures and identity for vectors."""


NetworkSpec = Annotated[LinearNetwork | MlpNetwork | ConvNetwork, Field(discriminator="kind")]
