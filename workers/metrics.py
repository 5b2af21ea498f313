"""What is measured besides the loss, in one place and under one name each."""

import time
from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

_BLOCK, _BLOCK_VALUES = 4096, 2**22  # rows and values, at most, converted to float at a time


def total_variance(rows: Tensor) -> Generator[None, None, float]:
    """Σ over dimensions of the variance (divided by N) of N×D rows; uint8 counts as pixel/255.

    Yields between blocks of rows.
    """
    sums = torch.zeros(2, rows.shape[1], dtype=torch.float64, device=rows.device)
    shift = as_float(rows[:1]).double()
    for block in torch.split(rows, min(_BLOCK, max(1, _BLOCK_VALUES // rows.shape[1]))):
        centred = as_float(block).double() - shift
        sums[0] += centred.sum(0)
        sums[1] += centred.square().sum(0)
        yield
    mean, mean_square = sums / rows.shape[0]
    return float((mean_square - mean.square()).clamp_min(0).sum())


def as_float(rows: Tensor) -> Tensor:
    """A batch as the model sees it: float32, and pixels as pixel/255 in [0, 1]."""
    if rows.dtype == torch.uint8:
        return rows.to(torch.float32).mul_(1 / 255)
    return rows


@dataclass(slots=True)
class EpochMeans:
    """Means over the data of an epoch so far, summed in the order of the steps in float64.

    The sums are part of the train state, so that a run that is interrupted in mid-epoch reports
    the same numbers.
    """

    rows: int = 0
    loss: float = 0.0
    reconstruction: float = 0.0
    kl: float = 0.0

    def add(self, rows: int, loss: float, reconstruction: float, kl: float) -> None:
        """Add one step of ``rows`` data, given its means."""
        self.rows += rows
        self.loss += rows * loss
        self.reconstruction += rows * reconstruction
        self.kl += rows * kl

    def values(self) -> dict[str, float]:
        """The means in nats per datum; empty before the first step."""
        if not self.rows:
            return {}
        reconstruction, kl = self.reconstruction / self.rows, self.kl / self.rows
        return {
            "loss_nats": self.loss / self.rows,
            "reconstruction_nats": reconstruction,
            "kl_nats": kl,
            "elbo_nats": -(reconstruction + kl),
        }


class Pace:
    """Counts data per second of training, without the time that evaluation and consumers take."""

    def __init__(self) -> None:
        self._data = 0
        self._busy_s = 0.0
        self._since = time.monotonic()

    def add(self, data: int) -> None:
        """``data`` more have been trained on."""
        self._data += data

    def pause(self) -> None:
        """What follows is not training."""
        self._busy_s += time.monotonic() - self._since

    def go_on(self) -> None:
        """Training goes on."""
        self._since = time.monotonic()

    def take(self) -> float | None:
        """Data per second since the last call (call while paused); None if there were none."""
        data, busy_s = self._data, self._busy_s
        self._data, self._busy_s = 0, 0.0
        return data / busy_s if data and busy_s > 0 else None
