"""How the workers of a run wait for the one that reports, and hear of a stop meanwhile.

Worker 0 alone evaluates a model, which may take longer than a worker may be silent in a sum. So the
others wait for it in small sums, one for each of its ticks and one when it is done. Each carries
the wish to stop of every worker, so that all hear of it at the same sum.
"""

from collections.abc import Callable, Generator

import torch

from workers.attended import Stopped
from workers.parallel import Peers


class Agreement:
    """What ``peers`` agree on between two steps; ``device`` is where their sums are."""

    def __init__(self, peers: Peers, device: torch.device) -> None:
        self._peers = peers
        self._device = device

    def is_stop_wished(self, wants_stop: bool) -> bool:
        """At a tick of worker 0: whether any worker wants to stop, and then all do.

        Raises PeerLost.
        """
        return self._sum(0, wants_stop, 0)[1] > 0

    def tell(self, word: int) -> None:
        """Worker 0 is done, and says a number to the others; raises PeerLost."""
        self._sum(1, False, word)

    def wait(self, should_stop: Callable[[], bool]) -> Generator[None, None, int]:
        """Another worker's waiting: yields at each tick of worker 0, and returns what it says.

        Raises Stopped where worker 0 has learned at a tick that a worker wants to stop, PeerLost.
        """
        wants_stop = False
        while True:
            is_done, wish, word = self._sum(0, wants_stop, 0)
            if is_done > 0:
                return int(word)
            if wish > 0:
                raise Stopped
            yield
            wants_stop = should_stop()

    def _sum(self, is_done: int, wants_stop: bool, word: int) -> list[float]:
        own = torch.tensor([float(is_done), float(wants_stop), float(word)], device=self._device)
        summed: list[float] = self._peers.all_reduce(own).tolist()
        return summed
