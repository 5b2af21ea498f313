"""Several workers on one run, as values: ranks, shares of a batch, and sums over all of them.

The trainer takes a :class:`Peers` and cannot tell what stands behind it. No group is kept in
torch.distributed itself, so one process may join one run after another.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, Self, assert_never
from urllib.parse import urlsplit

import torch.distributed as dist
from torch import Tensor

from workers.errors import PeerLost, WorkerError
from workers.spec import Resources

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store, Work

# A worker whose process ends is missed at once, because its connections break. The timeout is for
# a worker that hangs or whose machine is gone, and must be longer than rank 0 is away between two
# sums: for one piece of an evaluation, or to publish a checkpoint.
TIMEOUT_S = 600.0
# For all workers of a run to be there, each with its data: one may have to download them. Who waits
# can be told to stop meanwhile. Connecting, once all are there, takes milliseconds.
MEETING_S = 3600.0
CONNECTING_S = 30.0
ARRIVAL_INTERVAL_S = 0.02
# How long a worker stays awake for a sum on the CPU. Workers of equal work wait for each other for
# a millisecond or so many times a step, and a core that fell asleep wakes late and slow.
AWAKE_S = 0.02
LOOPBACK = "127.0.0.1"

AllReduce = Callable[[Tensor], Tensor]
Backend = Literal["gloo", "nccl"]


@dataclass(frozen=True, slots=True)
class Share:
    """The rows from ``begin`` to ``end`` of a batch of ``total``, perhaps none."""

    begin: int
    end: int
    total: int

    @classmethod
    def whole(cls, total: int) -> Self:
        """All rows."""
        return cls(0, total, total)

    def of(self, rows: Tensor, dim: int = 0) -> Tensor:
        """This share of a tensor that has ``total`` rows along ``dim``; a view."""
        size = self.end - self.begin
        return rows if size == self.total else rows.narrow(dim, self.begin, size)


@dataclass(frozen=True, slots=True)
class Peers:
    """The workers of one run, as one of them sees them.

    ``all_reduce`` sums a tensor over all workers, in place, with the same bits on each of them and
    in every run; every worker must call it the same number of times with tensors of the same
    size. It raises PeerLost where a worker is gone. ``close`` ends the connections; a peer that
    still waits then learns of it at once.
    """

    rank: int
    size: int
    all_reduce: AllReduce
    close: Callable[[], None]

    def share(self, total: int) -> Share:
        """This worker's rows of a batch; the shares are contiguous, in the order of the ranks."""
        return Share(self.rank * total // self.size, (self.rank + 1) * total // self.size, total)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor


def _nothing() -> None:
    pass


ALONE = Peers(0, 1, _unchanged, _nothing)


@dataclass(frozen=True, slots=True)
class Seat:
    """A worker's place in a run: which of how many, and where and how it meets the others.

    ``address`` and ``host`` are as for :func:`join`, and of no use to one that is alone.
    """

    rank: int = 0
    size: int = 1
    address: str = ""
    host: str = LOOPBACK
    backend: Backend = "gloo"

    def take(self, attend: Callable[[], None]) -> Peers:
        """Meet the others; see :func:`join`."""
        if self.size == 1:
            return ALONE
        return join(
            self.rank,
            self.size,
            self.address,
            host=self.host,
            backend=self.backend,
            attend=attend,
        )

    @classmethod
    def of(cls, resources: Resources, rank: int, address: str, host: str) -> Self:
        """The seat of one of a run's workers, which sum on GPUs if they have some."""
        backend: Backend = "nccl" if resources.gpus_per_worker else "gloo"
        return cls(rank, resources.workers, address, host, backend)


class Meeting:
    """A place where the workers of one run find each other.

    One process holds it from before the first :func:`join` until the last one has returned;
    ``address`` is what they are given. It listens on all interfaces, as torch's stores do, and
    knows no secret: only a network whose hosts are trusted may reach it.
    """

    def __init__(self, host: str) -> None:
        self._store = dist.TCPStore(  # type: ignore[attr-defined]
            host, 0, is_master=True, wait_for_workers=False
        )
        self.address = f"tcp://{host}:{self._store.port}"


class _Group(Protocol):
    def allreduce(self, tensors: list[Tensor]) -> "Work": ...

    def _set_default_timeout(self, timeout: timedelta) -> None: ...


class _Connection:
    """A group that can be let go of, which closes its connections."""

    def __init__(self, group: _Group, awake_s: float) -> None:
        self._group: _Group | None = group
        self._awake_s = awake_s

    def all_reduce(self, tensor: Tensor) -> Tensor:
        if self._group is None:
            raise PeerLost("This worker has closed its connections to the others.")
        try:
            work = self._group.allreduce([tensor])
            self._stay_awake(work)
            work.wait()
        except RuntimeError as error:
            raise PeerLost from error
        return tensor

    def _stay_awake(self, work: "Work") -> None:
        give_up_at = time.monotonic() + self._awake_s
        while time.monotonic() < give_up_at and not work.is_completed():
            os.sched_yield()

    def close(self) -> None:
        self._group = None


def join(
    rank: int,
    size: int,
    address: str,
    *,
    host: str,
    backend: Backend = "gloo",
    attend: Callable[[], None] = _nothing,
    meeting_s: float = MEETING_S,
    timeout_s: float = TIMEOUT_S,
) -> Peers:
    """Connect with the other workers of a run; returns when all are there.

    ``address`` is that of a :class:`Meeting`, or ``file:///path`` of a new file that all of them
    reach; ``host`` is the name or address under which this worker is reached. Gloo sums on the
    CPU and raises PeerLost when a worker is gone, or silent for ``timeout_s``. NCCL sums on the
    GPUs; there its own watchdog ends the process after ``timeout_s``. ``attend`` is called again
    and again while others are waited for; what it raises ends the waiting. Raises PeerLost if the
    workers do not meet within ``meeting_s``.
    """
    meeting, timeout = timedelta(seconds=CONNECTING_S), timedelta(seconds=timeout_s)
    try:
        store = _store(address, size, meeting)
        _wait_for_all(store, rank, size, attend, meeting_s)
        match backend:
            case "gloo":
                group, awake_s = _gloo(store, rank, size, host, meeting), AWAKE_S
            case "nccl":
                group, awake_s = _nccl(store, rank, size, meeting), 0.0
            case _:
                assert_never(backend)
    except (RuntimeError, TimeoutError) as error:
        raise PeerLost(
            f"Worker {rank} of {size} did not meet the others within {meeting_s:g} s; "
            "see whether all of them were started and reach each other over the network."
        ) from error
    group._set_default_timeout(timeout)
    connection = _Connection(group, awake_s)
    return Peers(rank, size, connection.all_reduce, connection.close)


def _wait_for_all(
    store: "Store", rank: int, size: int, attend: Callable[[], None], meeting_s: float
) -> None:
    """Say that this worker is there, and wait until all are. Raises TimeoutError.

    Worker 0 says when all go on to connect, so that no one does whom it has stopped waiting for.
    """
    give_up_at = time.monotonic() + meeting_s
    store.set(f"arrived/{rank}", "yes")
    awaited = ["all"] if rank else [f"arrived/{other}" for other in range(size)]
    while not store.check(awaited):
        attend()
        if time.monotonic() > give_up_at:
            raise TimeoutError
        time.sleep(ARRIVAL_INTERVAL_S)
    if rank == 0:
        store.set("all", "yes")


def _store(address: str, size: int, timeout: timedelta) -> "Store":
    parts = urlsplit(address)
    store: Store
    if parts.scheme == "file" and Path(parts.path).is_absolute():
        store = dist.FileStore(parts.path, size)  # type: ignore[attr-defined]
    elif parts.scheme == "tcp" and parts.hostname and parts.port:
        store = dist.TCPStore(  # type: ignore[attr-defined]
            parts.hostname, parts.port, is_master=False, timeout=timeout
        )
    else:
        raise WorkerError(f"{address} is no meeting place; use tcp://host:port or file:///path")
    store.set_timeout(timeout)
    return store


def _gloo(store: "Store", rank: int, size: int, host: str, timeout: timedelta) -> _Group:
    options = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
    options._devices = [dist.ProcessGroupGloo.create_device(hostname=host)]
    options._timeout = timeout
    group: _Group = dist.ProcessGroupGloo(store, rank, size, options)  # type: ignore[assignment]
    return group


def _nccl(store: "Store", rank: int, size: int, timeout: timedelta) -> _Group:
    if not dist.is_nccl_available():
        raise WorkerError("this build of torch has no NCCL; use gloo, or install one with CUDA")
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = timeout
    group: _Group = dist.ProcessGroupNCCL(store, rank, size, options)  # type: ignore[assignment]
    return group
