"""What is known of a data set, and how it is split."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What is known of a data set without training on it.

    ``shape`` is one datum's: (28, 28) for grey pictures, (H, W, C) for colour, (D,) for vectors.
    ``digest`` is that of the content; ``detail`` is the attribution, or why the data set is not
    available and what to do.
    """

    name: str
    title: str
    shape: tuple[int, ...]
    count: int
    is_image: bool
    digest: str
    available: bool
    detail: str

    @property
    def dimensions(self) -> int:
        """D, the number of values in one datum."""
        return int(np.prod(self.shape))

    @property
    def size_bytes(self) -> int:
        """Size of the decoded data: a byte a pixel, or four a number."""
        return self.count * self.dimensions * (1 if self.is_image else 4)


@dataclass(frozen=True, slots=True)
class Dataset:
    """The two splits, each N×D: uint8 for pictures, float32 for vectors.

    ``mixing`` (X, Z) is the true A of data that were drawn from one, in float64.
    """

    info: DatasetInfo
    train: torch.Tensor
    held_out: torch.Tensor
    mixing: torch.Tensor | None = None


NO_DATA = Dataset(
    DatasetInfo(
        name="none",
        title="No data",
        shape=(),
        count=0,
        is_image=False,
        digest="",
        available=True,
        detail="The job takes no data set.",
    ),
    torch.zeros(0, 1),
    torch.zeros(0, 1),
)
"""What a job has that names no data set."""


def held_out_count(count: int, fraction: float) -> int:
    """How many of ``count`` data are held out: at least one."""
    return max(1, round(count * fraction))


def split(count: int, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers of the training and the held-out split."""
    order = split_order(count, seed)
    held = held_out_count(count, fraction)
    return order[held:], order[:held]


def split_order(count: int, seed: int) -> NDArray[np.int64]:
    """All row numbers in the order of the split: its first ones are held out.

    It is the order of PCG64's raw output, the one stream which NumPy promises to keep.
    """
    return np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable")
