"""The InceptionV3 of the Fréchet Inception distance, as a function of its published weights.

The network of December 2015 (Szegedy et al., *Rethinking the Inception architecture*, 2016) up to
its last pooling: 2048 features. It is what Heusel et al. (*GANs trained by a two time-scale update
rule*, 2017) measure with, and differs from later ones: average pooling leaves the padding out, the
last block pools by the maximum, and pictures are enlarged as TensorFlow 1 did. Weights are looked
up by the names in the file that is in use as ``pt_inception-2015-12-05-6726825d.pth``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

import torch
from torch import Tensor
from torch.nn import functional

SIDE = 299
CLASSES = 1008
_EPSILON = 1e-3


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution without bias, batch normalisation, ReLU; padded unless ``valid``."""

    name: str
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    valid: bool = False


@dataclass(frozen=True, slots=True)
class Pool:
    """Pooling over 3×3: ``shrink`` by the maximum at stride 2, the others at stride 1, padded."""

    kind: Literal["average", "maximum", "shrink"]


@dataclass(frozen=True, slots=True)
class Branches:
    """Paths side by side, whose channels follow each other in what comes out."""

    paths: tuple[tuple["Layer", ...], ...]


Layer = Conv | Pool | Branches

_3, _ROW, _COLUMN = (3, 3), (1, 7), (7, 1)


def _shrinking(name: str, channels: int) -> Conv:
    return Conv(name, channels, _3, stride=2, valid=True)


def _a(at: str, pooled: int) -> Branches:
    return Branches(
        (
            (Conv(f"{at}.branch1x1", 64),),
            (Conv(f"{at}.branch5x5_1", 48), Conv(f"{at}.branch5x5_2", 64, (5, 5))),
            (
                Conv(f"{at}.branch3x3dbl_1", 64),
                Conv(f"{at}.branch3x3dbl_2", 96, _3),
                Conv(f"{at}.branch3x3dbl_3", 96, _3),
            ),
            (Pool("average"), Conv(f"{at}.branch_pool", pooled)),
        )
    )


def _b(at: str) -> Branches:
    return Branches(
        (
            (_shrinking(f"{at}.branch3x3", 384),),
            (
                Conv(f"{at}.branch3x3dbl_1", 64),
                Conv(f"{at}.branch3x3dbl_2", 96, _3),
                _shrinking(f"{at}.branch3x3dbl_3", 96),
            ),
            (Pool("shrink"),),
        )
    )


def _c(at: str, inner: int) -> Branches:
    return Branches(
        (
            (Conv(f"{at}.branch1x1", 192),),
            (
                Conv(f"{at}.branch7x7_1", inner),
                Conv(f"{at}.branch7x7_2", inner, _ROW),
                Conv(f"{at}.branch7x7_3", 192, _COLUMN),
            ),
            (
                Conv(f"{at}.branch7x7dbl_1", inner),
                Conv(f"{at}.branch7x7dbl_2", inner, _COLUMN),
                Conv(f"{at}.branch7x7dbl_3", inner, _ROW),
                Conv(f"{at}.branch7x7dbl_4", inner, _COLUMN),
                Conv(f"{at}.branch7x7dbl_5", 192, _ROW),
            ),
            (Pool("average"), Conv(f"{at}.branch_pool", 192)),
        )
    )


def _d(at: str) -> Branches:
    return Branches(
        (
            (Conv(f"{at}.branch3x3_1", 192), _shrinking(f"{at}.branch3x3_2", 320)),
            (
                Conv(f"{at}.branch7x7x3_1", 192),
                Conv(f"{at}.branch7x7x3_2", 192, _ROW),
                Conv(f"{at}.branch7x7x3_3", 192, _COLUMN),
                _shrinking(f"{at}.branch7x7x3_4", 192),
            ),
            (Pool("shrink"),),
        )
    )


def _e(at: str, pool: Literal["average", "maximum"]) -> Branches:
    def both(name: str) -> Branches:
        return Branches(((Conv(f"{name}a", 384, (1, 3)),), (Conv(f"{name}b", 384, (3, 1)),)))

    return Branches(
        (
            (Conv(f"{at}.branch1x1", 320),),
            (Conv(f"{at}.branch3x3_1", 384), both(f"{at}.branch3x3_2")),
            (
                Conv(f"{at}.branch3x3dbl_1", 448),
                Conv(f"{at}.branch3x3dbl_2", 384, _3),
                both(f"{at}.branch3x3dbl_3"),
            ),
            (Pool(pool), Conv(f"{at}.branch_pool", 192)),
        )
    )


_LAYERS: tuple[Layer, ...] = (
    _shrinking("Conv2d_1a_3x3", 32),
    Conv("Conv2d_2a_3x3", 32, _3, valid=True),
    Conv("Conv2d_2b_3x3", 64, _3),
    Pool("shrink"),
    Conv("Conv2d_3b_1x1", 80),
    Conv("Conv2d_4a_3x3", 192, _3, valid=True),
    Pool("shrink"),
    *(_a("Mixed_5b", 32), _a("Mixed_5c", 64), _a("Mixed_5d", 64), _b("Mixed_6a")),
    *(_c("Mixed_6b", 128), _c("Mixed_6c", 160), _c("Mixed_6d", 160), _c("Mixed_6e", 192)),
    *(_d("Mixed_7a"), _e("Mixed_7b", "average"), _e("Mixed_7c", "maximum")),
)


def shapes() -> dict[str, tuple[int, ...]]:
    """What of the published weights is used: names and shapes."""
    found: dict[str, tuple[int, ...]] = {}
    _walk(_LAYERS, 3, found)
    return found


def _walk(layers: Sequence[Layer], channels: int, found: dict[str, tuple[int, ...]]) -> int:
    """Note the shapes of layers that are given so many channels; returns how many come out."""
    for layer in layers:
        match layer:
            case Conv():
                found[f"{layer.name}.conv.weight"] = (layer.channels, channels, *layer.kernel)
                for part in ("weight", "bias", "running_mean", "running_var"):
                    found[f"{layer.name}.bn.{part}"] = (layer.channels,)
                channels = layer.channels
            case Pool():
                pass
            case Branches():
                channels = sum(_walk(path, channels, found) for path in layer.paths)
            case _:
                assert_never(layer)
    return channels


def features(weights: Mapping[str, Tensor], pictures: Tensor) -> Tensor:
    """The 2048 features of N×3×H×W pictures with values in [0, 255]; it sees (x − 128)/128."""
    return _apply(weights, _LAYERS, (enlarged(pictures) - 128) / 128).mean((2, 3))


def enlarged(pictures: Tensor) -> Tensor:
    """To 299×299, bilinearly as TensorFlow 1: output i is read at i·size/299, from corner 0."""
    for axis in (2, 3):
        size = pictures.shape[axis]
        at = torch.arange(SIDE, device=pictures.device, dtype=torch.float32) * (size / SIDE)
        low = at.floor().long()
        part = (at - low).view([SIDE if axis == d else 1 for d in range(4)])
        first = pictures.index_select(axis, low)
        second = pictures.index_select(axis, (low + 1).clamp_max(size - 1))
        pictures = first + part * (second - first)
    return pictures


def _apply(weights: Mapping[str, Tensor], layers: Sequence[Layer], x: Tensor) -> Tensor:
    for layer in layers:
        match layer:
            case Conv():
                x = _conv(weights, layer, x)
            case Pool(kind="average"):
                x = functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
            case Pool(kind="maximum"):
                x = functional.max_pool2d(x, 3, stride=1, padding=1)
            case Pool():
                x = functional.max_pool2d(x, 3, stride=2)
            case Branches():
                x = torch.cat([_apply(weights, path, x) for path in layer.paths], 1)
            case _:
                assert_never(layer)
    return x


def _conv(weights: Mapping[str, Tensor], layer: Conv, x: Tensor) -> Tensor:
    kernel = weights[f"{layer.name}.conv.weight"]
    padding = (0, 0) if layer.valid else (layer.kernel[0] // 2, layer.kernel[1] // 2)
    x = torch.conv2d(x, kernel, stride=layer.stride, padding=padding)
    mean, variance, weight, bias = (
        weights[f"{layer.name}.bn.{part}"]
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return functional.relu(functional.batch_norm(x, mean, variance, weight, bias, eps=_EPSILON))
