"""Feature spaces in which samples and data are compared."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Protocol, assert_never

import torch
from torch import Tensor
from torch.backends import cudnn

from workers.errors import SpecMismatch
from workers.metrics import as_float
from workers.quality import efficientnet, inception
from workers.quality.weights import Shelf
from workers.spec import FeatureName, Quality
from workers.spread.learned.covariance import principal_components

_SEED = 0
_EFFICIENTNET_ROWS, _INCEPTION_ROWS = 64, 8  # at once: about a quarter of a second, and a second


class Features(Protocol):
    """A feature space: its numbers are those of ``name`` and ``version``.

    ``version`` rises when the same rows would give other features; ``suffix`` is what the names of
    measures end with.
    """

    @property
    def name(self) -> str:
        """What the space is called in reports."""
        ...

    @property
    def suffix(self) -> str:
        """What the names of its measures end with."""
        ...

    @property
    def version(self) -> int:
        """Of its recipe."""
        ...

    def blocks(self, rows: Tensor) -> Iterator[Tensor]:
        """Features of N×D rows, float64, block by block of the rows."""
        ...


class PixelPca:
    """The coordinates of rows along the leading principal components of the training data.

    A function of the training data alone, whatever the model.
    """

    version = 1
    suffix = "pca"

    def __init__(self, train: Tensor, components: int) -> None:
        self.size = min(components, train.shape[1])
        self.name = f"pixel-pca-{self.size}"
        self._components = principal_components(train, self.size, _SEED)

    def of(self, rows: Tensor) -> Tensor:
        """Features of N×D rows, float64 of shape (N, F)."""
        features: Tensor = as_float(rows) @ self._components
        return features.double()

    def blocks(self, rows: Tensor) -> Iterator[Tensor]:
        """See :class:`Features`; all rows at once."""
        yield self.of(rows)


class NetworkFeatures:
    """Features of pictures by a network with published weights.

    Pictures are seen as their PNG would be, with 8 bits a value; grey ones in all three channels.
    Raises ExtractorUnavailable where this node has no weights.
    """

    version = 1

    def __init__(
        self, name: FeatureName, shape: tuple[int, ...], shelf: Shelf, device: torch.device
    ) -> None:
        self.name: str = name
        self.suffix: str = name
        self._shape = shape
        match name:
            case "efficientnet_lite0_40" | "efficientnet_lite0_320":
                weights = _on(device, shelf.efficientnet(efficientnet.shapes()))
                self._at_once = _EFFICIENTNET_ROWS
                blocks = 5 if name == "efficientnet_lite0_40" else 16
                self._network = partial(efficientnet.features, weights, blocks=blocks)
            case "inception_v3_fid":
                weights = _on(device, shelf.inception_fid(inception.shapes()))
                self._at_once = _INCEPTION_ROWS
                self._network = partial(inception.features, weights)
            case _:
                assert_never(name)

    def blocks(self, rows: Tensor) -> Iterator[Tensor]:
        """See :class:`Features`."""
        for block in rows.split(self._at_once):
            # A GPU convolves in TF32 otherwise, and a figure should not depend on the device.
            with torch.no_grad(), cudnn.flags(enabled=True, allow_tf32=False):
                found = self._network(pictures(block, self._shape)).double()
            yield found


def _on(device: torch.device, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in weights.items()}


def pictures(rows: Tensor, shape: tuple[int, ...]) -> Tensor:
    """N×D rows as N×3×H×W with whole values in [0, 255]; ``shape`` is H×W or H×W×C, C 1 or 3."""
    values = rows.float() if rows.dtype == torch.uint8 else rows.clamp(0, 1).mul(255).round()
    channels = shape[2] if len(shape) == 3 else 1
    planes = values.reshape(-1, *shape[:2], channels).permute(0, 3, 1, 2)
    return planes.expand(-1, 3, -1, -1).contiguous()


def networks(
    quality: Quality, shape: tuple[int, ...], shelf: Shelf, device: torch.device
) -> list[NetworkFeatures]:
    """The networks that a spec names; raises ExtractorUnavailable."""
    return [NetworkFeatures(name, shape, shelf, device) for name in dict.fromkeys(quality.features)]


def lacking(quality: Quality, shelf: Shelf) -> Iterator[SpecMismatch]:
    """Which of the named networks have no weights on this machine; pointers are as in a spec."""
    for index, name in enumerate(quality.features):
        match name:
            case "efficientnet_lite0_40" | "efficientnet_lite0_320":
                lacks = shelf.lacks_efficientnet()
            case "inception_v3_fid":
                lacks = shelf.lacks_inception()
            case _:
                assert_never(name)
        if lacks is not None:
            message = f"{name} {lacks}, or leave it out"
            yield SpecMismatch(f"/trainer/quality/features/{index}", message)
