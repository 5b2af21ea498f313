"""The memory of this process: the most that it has had, and what it no longer needs."""

import ctypes
import gc
import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


def peak_rss_bytes() -> int | None:
    """The most resident memory since the process began, or since the last reset; None where the
    kernel does not say."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, amount = line.partition(":")
        if name == "VmHWM":
            return int(amount.split()[0]) * 1024
    return None


def forget_peak() -> None:
    """Count from now on. Where the kernel refuses, the peak is that of the process's whole life."""
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return


def give_back() -> None:
    """Return memory that is free to the kernel, where the C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


class _Blocks:
    """How many blocks of :func:`lasting` are under way, in whichever threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def enter(self) -> None:
        with self._lock:
            self._count += 1
            gc.disable()

    def leave(self) -> None:
        with self._lock:
            self._count -= 1
            gc.freeze()
            if not self._count:
                gc.enable()


_BLOCKS = _Blocks()


@contextmanager
def lasting() -> Iterator[None]:
    """What the block makes is there to the end of the process: no collection of garbage looks
    through it, in the block or ever after. Those of an import of torch or Ray Tune take a tenth to
    a quarter of its time, later ones as much of that of short work.

    What else refers to itself at the block's end is never collected either. So it is for a process
    that begins; see :func:`import_lasting` for others.
    """
    _BLOCKS.enter()
    try:
        yield
    finally:
        _BLOCKS.leave()


def import_lasting(*names: str) -> None:
    """Import modules in such a block, unless they are there.

    What is garbage by then is collected first. Not while a model is trained in this process: what
    of it refers to itself would stay.
    """
    if any(name not in sys.modules for name in names):
        gc.collect()
        with lasting():
            for name in names:
                importlib.import_module(name)
