"""Lets everything that a process writes to standard output and standard error go into a file."""

import contextlib
import ctypes
import faulthandler
import io
import os
import sys

STANDARD = (1, 2)
LINE_BUFFERED = 1  # _IOLBF


def flush_python() -> None:
    """Let go of what Python holds back."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _flush() -> None:
    flush_python()
    ctypes.CDLL(None).fflush(None)


def _write_by_lines() -> None:
    """Let Python and the C library hold back no whole line: a crash would take it along."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    library = ctypes.CDLL(None)
    stdout = ctypes.c_void_p.in_dll(library, "stdout")
    library.setvbuf(stdout, None, LINE_BUFFERED, ctypes.c_size_t(0))


class CapturedOutput:
    """Descriptors 1 and 2 of this process, led into a file until ``release``.

    Child processes inherit them. A fatal signal leaves a trace of all threads there, which
    faulthandler writes to descriptor 2 by its number.
    """

    def __init__(self, descriptor: int) -> None:
        _flush()
        _write_by_lines()
        self._saved = [os.dup(number) for number in STANDARD]
        for number in STANDARD:
            os.dup2(descriptor, number)
        faulthandler.enable(file=2, all_threads=True)

    def release(self) -> None:
        """Give both back to where they went before."""
        _flush()
        for number, saved in zip(STANDARD, self._saved, strict=True):
            os.dup2(saved, number)
            os.close(saved)
