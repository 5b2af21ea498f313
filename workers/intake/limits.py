"""How much an upload may ask for, and which arrays are data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workers.content import DType
from workers.errors import InvalidUpload

MIN_COUNT = 20  # fewer cannot be split into a training and a held-out part that mean anything
MAX_SIDE = 1024
MAX_DIMENSIONS = 65_536


@dataclass(frozen=True, slots=True)
class Limits:
    """``max_decoded_bytes`` bounds the array, as sent and in normal form; ``max_members`` a zip."""

    max_decoded_bytes: int = 8 << 30
    max_members: int = 300_000


@dataclass(frozen=True, slots=True)
class Layout:
    """An array that is data: its shape as sent, and one datum's shape and type in normal form."""

    count: int
    datum: tuple[int, ...]
    dtype: DType


def layout_of(shape: Sequence[int], dtype: np.dtype[np.generic], limits: Limits) -> Layout:
    """What an array of that shape and type is as data; raises InvalidUpload."""
    if dtype.hasobject:
        raise InvalidUpload(
            "it holds Python objects, which would have to be unpickled; save numbers of one type"
        )
    if dtype.kind not in "buif":
        raise InvalidUpload(f"its type is {dtype}; data are real numbers")
    match len(shape), dtype == np.uint8:
        case 2, _:
            layout = _vectors(shape)
        case ((3 | 4), True):
            layout = _pictures(shape)
        case ((3 | 4), False):
            raise InvalidUpload(
                f"pictures must be uint8, these are {dtype}; "
                "from values in [0, 1] make them with (255 * x).round().astype('uint8')"
            )
        case _:
            raise InvalidUpload(
                f"its shape is {shown(shape)}; data are N×D, pictures N×H×W or N×H×W×3"
            )
    check_count(layout.count)
    values = math.prod(layout.datum) * layout.count
    check_size(values * max(dtype.itemsize, 1 if layout.dtype == "uint8" else 4), limits)
    return layout


def _vectors(shape: Sequence[int]) -> Layout:
    if not 1 <= shape[1] <= MAX_DIMENSIONS:
        raise InvalidUpload(f"vectors have 1 to {MAX_DIMENSIONS:,} numbers, these {shape[1]:,}")
    return Layout(shape[0], (shape[1],), "float32")


def _pictures(shape: Sequence[int]) -> Layout:
    check_picture(shape[1], shape[2])
    match tuple(shape[3:]):
        case () | (1,):
            return Layout(shape[0], (shape[1], shape[2]), "uint8")
        case (3,):
            return Layout(shape[0], (shape[1], shape[2], 3), "uint8")
        case channels:
            raise InvalidUpload(
                f"pictures have 1 or 3 channels, the last axis; these have {channels[0]}"
            )


def check_picture(height: int, width: int) -> None:
    """Raises InvalidUpload for a picture that is empty or too large."""
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise InvalidUpload(
            f"pictures have sides of 1 to {MAX_SIDE} pixels; this one is {height}×{width}"
        )


def check_count(count: int) -> None:
    """Raises InvalidUpload for too few data."""
    if count < MIN_COUNT:
        raise InvalidUpload(f"a data set has at least {MIN_COUNT} data; there are {count}")


def check_size(size_bytes: int, limits: Limits) -> None:
    """Raises InvalidUpload for an array beyond the limit."""
    if size_bytes > limits.max_decoded_bytes:
        raise InvalidUpload(
            f"the array would have {size_bytes:,} bytes, and {limits.max_decoded_bytes:,} are "
            "allowed (SPREADTRAIN_MAX_DECODED_BYTES)"
        )


def shown(shape: Sequence[int]) -> str:
    """A shape in a message."""
    return "×".join(str(size) for size in shape) or "a single number"
