"""EfficientNet-Lite0 without its head, as a function of its published weights.

Mobile inverted bottlenecks without squeeze and excitation, ReLU6 throughout (Tan and Le,
*EfficientNet*, 2019; the Lite variants, 2020). Padding is TensorFlow's ``SAME``, by the size of
what comes in. Weights are looked up by the names in the published file.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

SIDE = 64  # pictures are enlarged to this, at least

# Of each stage: blocks, kernel, stride of the first block, expansion, channels in and out.
_STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
_BLOCKS = tuple(
    (kernel, stride if at == 0 else 1, expansion, before if at == 0 else after, after)
    for count, kernel, stride, expansion, before, after in _STAGES
    for at in range(count)
)
_EPSILON = 1e-3


def shapes() -> dict[str, tuple[int, ...]]:
    """What of the published weights is used: names and shapes."""
    found: dict[str, tuple[int, ...]] = {"_conv_stem.weight": (32, 3, 3, 3)}
    found |= _norm_shapes("_bn0", 32)
    for number, (kernel, _, expansion, before, after) in enumerate(_BLOCKS):
        at, inner = f"_blocks.{number}", before * expansion
        if expansion > 1:
            found[f"{at}._expand_conv.weight"] = (inner, before, 1, 1)
            found |= _norm_shapes(f"{at}._bn0", inner)
        found[f"{at}._depthwise_conv.weight"] = (inner, 1, kernel, kernel)
        found |= _norm_shapes(f"{at}._bn1", inner)
        found[f"{at}._project_conv.weight"] = (after, inner, 1, 1)
        found |= _norm_shapes(f"{at}._bn2", after)
    return found


def _norm_shapes(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (channels,) for part in parts}


def features(weights: Mapping[str, Tensor], pictures: Tensor, blocks: int) -> Tensor:
    """The mean over the picture of what leaves the first ``blocks`` blocks, shape (N, channels).

    ``pictures`` are N×3×H×W with values in [0, 255]; the network sees (x − 127)/128. Smaller ones
    than 64 are enlarged to it, bilinearly.
    """
    size = tuple(max(SIDE, side) for side in pictures.shape[2:])
    if size != tuple(pictures.shape[2:]):
        pictures = functional.interpolate(pictures, size=size, mode="bilinear", align_corners=False)
    x = _conv(weights, "_conv_stem", (pictures - 127) / 128, stride=2)
    x = functional.relu6(_norm(weights, "_bn0", x))
    for number in range(blocks):
        x = _block(weights, number, x)
    return x.mean((2, 3))


def _block(weights: Mapping[str, Tensor], number: int, x: Tensor) -> Tensor:
    _, stride, expansion, before, after = _BLOCKS[number]
    at, h = f"_blocks.{number}", x
    if expansion > 1:
        h = functional.relu6(_norm(weights, f"{at}._bn0", _conv(weights, f"{at}._expand_conv", h)))
    h = _conv(weights, f"{at}._depthwise_conv", h, stride=stride, groups=h.shape[1])
    h = functional.relu6(_norm(weights, f"{at}._bn1", h))
    h = _norm(weights, f"{at}._bn2", _conv(weights, f"{at}._project_conv", h))
    return h + x if stride == 1 and before == after else h


def _conv(
    weights: Mapping[str, Tensor], name: str, x: Tensor, stride: int = 1, groups: int = 1
) -> Tensor:
    """A convolution padded so that ⌈size/stride⌉ values come out; the odd one at the end."""
    kernel = weights[f"{name}.weight"]
    pads = []
    for axis in (3, 2):
        size, width = x.shape[axis], kernel.shape[axis]
        whole = max((math.ceil(size / stride) - 1) * stride + width - size, 0)
        pads += [whole // 2, whole - whole // 2]
    padded = functional.pad(x, pads) if any(pads) else x
    return torch.conv2d(padded, kernel, stride=stride, groups=groups)


def _norm(weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    mean, variance, weight, bias = (
        weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return functional.batch_norm(x, mean, variance, weight, bias, eps=_EPSILON)
