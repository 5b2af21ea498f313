"""Data as the E-step reads it: this worker's rows, centred, in chunks, perhaps with spread noise.

Rows are numbered over all workers, and noise is drawn for whole blocks of that numbering, so it
does not depend on how the rows are shared out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from workers.parallel import ALONE, Peers
from workers.seeds import SeedStream

_BLOCK = 1024  # rows whose noise is drawn together
_READ = 8192  # rows that are summed at a time


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Shard:
    """Rows ``offset`` to ``offset + len(rows)`` of ``total``, as data of X dimensions.

    ``rows`` (n, X) of any float type, perhaps mapped from a file; ``mean`` (X) in float64 is
    taken off; ``basis`` (X, Z), where given, turns them into Z coordinates; ``sigma`` is the
    standard deviation of the spread noise, drawn from ``seed``. ``is_over`` is asked before every
    chunk: once it is true no more come, and whoever asked for the end throws the sums away.
    """

    rows: Tensor
    mean: Tensor
    offset: int
    total: int
    sigma: float = 0.0
    seed: int = 0
    basis: Tensor | None = None
    is_over: Callable[[], bool] = _never

    @property
    def dimensions(self) -> int:
        """X, or Z with a basis."""
        return self.rows.shape[1] if self.basis is None else self.basis.shape[1]

    @classmethod
    def of(cls, rows: Tensor, peers: Peers = ALONE) -> Self:
        """This worker's rows, numbered behind those of the ranks before it, and centred."""
        sizes = torch.zeros(peers.size, dtype=torch.float64, device=rows.device)
        sizes[peers.rank] = len(rows)
        counts = [int(size) for size in peers.all_reduce(sizes).tolist()]
        total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
        for block in torch.split(rows, _READ):
            total += block.double().sum(0)
        mean = peers.all_reduce(total) / sum(counts)
        return cls(rows, mean, sum(counts[: peers.rank]), sum(counts))

    def spread(self, sigma: float, seed: int) -> Self:
        """The same data as y = x + σe."""
        return replace(self, sigma=sigma, seed=seed)

    def chunks(self, size: int, dtype: torch.dtype) -> Iterator[Tensor]:
        """The data as (X, n) for at most ``size`` rows at a time."""
        for begin in range(0, len(self.rows), size):
            if self.is_over():
                return
            yield self.part(begin, min(begin + size, len(self.rows)), dtype)

    def part(self, begin: int, end: int, dtype: torch.dtype) -> Tensor:
        """The data of this worker's rows ``begin`` to ``end``, (X, n)."""
        part = self.rows[begin:end].to(dtype).T - self.mean.to(dtype)[:, None]
        if self.basis is not None:
            part = self.basis.T.to(dtype) @ part
        if self.sigma > 0:
            part.add_(self._noise(begin, end - begin).T.to(dtype), alpha=self.sigma)
        return part

    def _noise(self, begin: int, count: int) -> Tensor:
        first, last = self.offset + begin, self.offset + begin + count
        seeds = SeedStream(self.seed, "ica-spread")
        blocks = [
            torch.randn(
                (_BLOCK, self.dimensions),
                generator=torch.Generator(self.rows.device).manual_seed(seeds.at(block)),
                device=self.rows.device,
            )
            for block in range(first // _BLOCK, (last - 1) // _BLOCK + 1)
        ]
        start = first - first // _BLOCK * _BLOCK
        return torch.cat(blocks)[start : start + count]

    def scatter(self, peers: Peers = ALONE) -> Tensor:
        """Mean of yyᵀ over the data of all workers, (X, X) in float64."""
        width = self.dimensions
        total = torch.zeros((width, width), dtype=torch.float64, device=self.rows.device)
        for part in self.chunks(_READ, torch.float64):
            total.addmm_(part, part.T)
        return peers.all_reduce(total) / self.total

    def thinned(self, count: int, peers: Peers = ALONE) -> Self:
        """At most ``count`` rows at equal distances, the same on all workers and whole on each.

        These few are always read to their end.
        """
        if self.total <= count and peers.size == 1:
            return replace(self, is_over=_never)
        count = min(count, self.total)
        numbers = torch.arange(count, device=self.rows.device) * self.total // count
        mine = (numbers >= self.offset) & (numbers < self.offset + len(self.rows))
        rows = torch.zeros(
            (count, self.rows.shape[1]), dtype=torch.float64, device=self.rows.device
        )
        rows[mine] = self.rows[numbers[mine] - self.offset].double()
        rows = peers.all_reduce(rows).to(self.rows.dtype)
        return replace(self, rows=rows, offset=0, total=count, is_over=_never)
