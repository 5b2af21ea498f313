"""The order of the data: batch by batch, a permutation for each pass, the same on every worker."""

import torch
from torch import Tensor

from workers.seeds import SeedStream


class Order:
    """Row numbers of batches, functions of the seed stream and the batch's index."""

    def __init__(self, seeds: SeedStream, rows: int, batch_size: int, device: torch.device) -> None:
        self._seeds = seeds
        self._rows = rows
        self._size = batch_size
        self._device = device
        self._batches = -(-rows // batch_size)
        self._order = torch.empty(0, dtype=torch.int64)
        self._pass = -1

    def batch(self, index: int) -> Tensor:
        """Row numbers of one batch; the last one of a pass may be smaller."""
        number, at = divmod(index, self._batches)
        if self._pass != number:
            generator = torch.Generator()
            generator.manual_seed(self._seeds.at(number))
            order = torch.randperm(self._rows, generator=generator)
            self._order, self._pass = order.to(self._device), number
        return self._order[at * self._size : (at + 1) * self._size]
