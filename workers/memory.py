"""The memory of this process: the most that it has had, and what it no longer needs."""

import ctypes
import gc
import importlib
import sys
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


@contextmanager
def lasting() -> Iterator[None]:
    """What the block imports is there to the end of the process: no collection of garbage looks
    through it, in the block or ever after. Those of an import of torch or Ray Tune take a tenth
    to a quarter of its time, later ones as much of that of short work."""
    was_enabled = gc.isenabled()  # not within another such block
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def import_lasting(*names: str) -> None:
    """Import modules in such a block, unless they are there.

    Not while a model is trained in this process: what of it refers to itself would stay.
    """
    if any(name not in sys.modules for name in names):
        with lasting():
            for name in names:
                importlib.import_module(name)
