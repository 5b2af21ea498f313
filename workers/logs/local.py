"""The local file that an attempt's process writes its log into.

Whoever writes, appends. What was read is given back to the disk by punching a hole, so that the
file takes no more room than what waits, while every position in it stays what it was.
"""

import contextlib
import ctypes
import fcntl
import os
import re
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

FOLDER = "attempt-logs"
FILES_KEPT = 32  # leftovers of killed processes that no service came for
BLOCK_BYTES = 4096
COUNTED_BYTES = 32 << 20  # lines of what is skipped are counted up to here
PIECE_BYTES = 1 << 20

_KEEP_SIZE_PUNCH_HOLE = 1 | 2  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE


def local_log_path(cache_dir: Path, job_id: str, attempt: int, rank: int = 0) -> Path:
    """Where a process of the attempt writes. Raises ValueError for an id that is no name."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", job_id):
        raise ValueError(f"{job_id!r} is no job's id")
    return cache_dir / FOLDER / f"{job_id}.{attempt}.{rank}.log"


class LocalLog:
    """An open local log. Raises OSError where the disk does."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self._lock = threading.Lock()
        self._is_closed = False

    @classmethod
    def create(cls, path: Path) -> Self:
        """A new file, or the one that an earlier process of the same attempt has left.

        The lock tells others that somebody is at work on it, children that inherit it included.
        """
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        prune(path.parent)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        made = cls(path, os.open(path, flags, 0o600))
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(made.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return made

    @classmethod
    def existing(cls, path: Path) -> Self:
        """The file that a process has left; raises FileNotFoundError."""
        return cls(path, os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC))

    def close(self) -> None:
        """Close it; the file stays."""
        with self._lock:
            self._is_closed = True
            os.close(self.descriptor)

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)

    def append(self, content: bytes) -> None:
        """Write at the end, in one piece; nothing happens once it is closed."""
        with self._lock:  # or the number might be another file's by now
            if not self._is_closed:
                os.write(self.descriptor, content)

    def size(self) -> int:
        """The position behind the last byte."""
        return os.fstat(self.descriptor).st_size

    def written_at(self) -> datetime:
        """When somebody wrote last."""
        return datetime.fromtimestamp(os.fstat(self.descriptor).st_mtime, UTC)

    def read(self, start: int, length: int) -> bytes:
        """The bytes from a position."""
        return os.pread(self.descriptor, length, start)

    def first_data(self, start: int) -> int:
        """The first position from ``start`` on that was not given back to the disk."""
        try:
            return os.lseek(self.descriptor, start, os.SEEK_DATA)
        except OSError:
            return self.size()  # a hole up to the end

    def first_hole(self, start: int) -> int:
        """The first position from ``start`` on that was given back to the disk, or the size."""
        try:
            return os.lseek(self.descriptor, start, os.SEEK_HOLE)
        except OSError:
            return self.size()  # start is the end

    def count_lines(self, start: int, stop: int) -> int | None:
        """Newlines in [start, stop); None where that is too much to read, or not there."""
        if stop - start > COUNTED_BYTES or self.first_hole(start) < stop:
            return None
        pieces = range(start, stop, PIECE_BYTES)
        return sum(self.read(at, min(PIECE_BYTES, stop - at)).count(b"\n") for at in pieces)

    def give_back(self, start: int, stop: int) -> None:
        """Free the disk from the whole blocks inside [start, stop), where the file system can."""
        first = -(-start // BLOCK_BYTES) * BLOCK_BYTES
        length = stop - stop % BLOCK_BYTES - first
        if length > 0:
            offset = ctypes.c_long(first)
            ctypes.CDLL(None, use_errno=True).fallocate(
                self.descriptor, _KEEP_SIZE_PUNCH_HOLE, offset, ctypes.c_long(length)
            )


def prune(folder: Path) -> None:
    """Remove the oldest files that nobody is at work on, beyond ``FILES_KEPT``."""
    found = []
    for path in folder.glob("*.log"):
        with contextlib.suppress(OSError):  # removed meanwhile
            found.append((path.stat().st_mtime, path))
    for _, path in sorted(found)[:-FILES_KEPT]:
        with contextlib.suppress(OSError):  # locked: its process lives
            file = LocalLog.existing(path)
            try:
                fcntl.flock(file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.remove()
            finally:
                file.close()
