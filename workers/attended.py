"""A long computation in a thread of its own, so that whoever waits for it can speak and listen.

An E-step over many data takes as long as it takes. A run must say every second that it goes on,
and hear a wish to stop.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import Empty, Full, Queue
from typing import TypeVar

import torch
from torch import Tensor

from workers.parallel import Peers

TICK_S = 0.5
_POLL_S = 0.1

_T = TypeVar("_T")


class Stopped(Exception):
    """The computation was asked to end."""


class Wish:
    """Whether a computation is to end, asked of this worker; any thread may set it."""

    def __init__(self) -> None:
        self._is_set = threading.Event()

    def set(self) -> None:
        """Ask for the end."""
        self._is_set.set()

    def __call__(self) -> bool:
        """Whether the end was asked for."""
        return self._is_set.is_set()


def heeding(peers: Peers, wish: Wish) -> Peers:
    """The same workers, whose every sum carries the wish: asked of any, all raise Stopped at once.

    So none of them waits for another that has stopped.
    """

    def all_reduce(tensor: Tensor) -> Tensor:
        flag = tensor.new_tensor([float(wish())])
        if peers.size > 1:
            summed = peers.all_reduce(torch.cat([tensor.flatten(), flag]))
            tensor.copy_(summed[:-1].view_as(tensor))
            flag = summed[-1:]
        if flag.item() > 0:
            raise Stopped
        return tensor

    return replace(peers, all_reduce=all_reduce)


def attended(
    work: Callable[[], Iterator[_T]], wish: Wish, should_stop: Callable[[], bool]
) -> Iterator[_T | None]:
    """What ``work`` yields, and None for every TICK_S of silence.

    ``should_stop`` is asked between; once it is true the wish is set, upon which ``work`` may end
    by raising Stopped. Whatever else it raises is raised here. Who leaves early waits for its end.
    """
    results: Queue[list[_T]] = Queue(maxsize=1)  # an empty list is the end
    is_left = threading.Event()

    def hand_over(item: list[_T]) -> None:
        while not is_left.is_set():
            with contextlib.suppress(Full):
                results.put(item, timeout=_POLL_S)
                return
        raise Stopped

    def compute() -> None:
        try:
            with contextlib.suppress(Stopped):
                for item in work():
                    hand_over([item])
        finally:
            with contextlib.suppress(Stopped):
                hand_over([])

    with ThreadPoolExecutor(1, thread_name_prefix="fit") as pool:
        computed = pool.submit(compute)
        try:
            yield from _heard(results, wish, should_stop)
        finally:
            is_left.set()
            wish.set()
        computed.result()


def _heard(
    results: Queue[list[_T]], wish: Wish, should_stop: Callable[[], bool]
) -> Iterator[_T | None]:
    spoke_at = time.monotonic()
    while True:
        if should_stop():
            wish.set()
        try:
            found = results.get(timeout=_POLL_S)
        except Empty:
            if time.monotonic() - spoke_at < TICK_S:
                continue
            yield None
        else:
            if not found:
                return
            yield found[0]
        spoke_at = time.monotonic()
