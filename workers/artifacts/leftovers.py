"""Temporary files and folders of writes: how they are made, and what killed processes have left.

Their names begin with ``.incoming-``, so no listing of a store shows them. Nobody can tell a write
that still goes on from one whose process is gone, but for the time of the last change.
"""

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from workers.errors import StoreError, StoreFull

INCOMING = ".incoming-"
# In a folder that all programs share the name says whose it is.
_OURS = ".incoming-spreadtrain-"


@dataclass(frozen=True, slots=True)
class Leftover:
    """A temporary file or folder; ``touched_at`` is the last change of anything in it."""

    path: Path
    size_bytes: int
    touched_at: datetime


@contextlib.contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """A new folder, gone after the block; its name begins with a dot. Raises StoreError.

    Without a parent it is where the system keeps temporary files (TMPDIR).
    """
    try:
        folder = tempfile.TemporaryDirectory(
            prefix=_OURS if parent is None else INCOMING, dir=parent, ignore_cleanup_errors=True
        )
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull("the disk for a checkpoint on its way is full; make room") from error
        raise StoreError(f"there is no place for temporary files: {error.strerror}") from error
    with folder as name:
        yield Path(name)


def leftovers_below(folder: Path) -> Iterator[Leftover]:
    """Every temporary file and folder at any depth below a folder of ours."""
    for where, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            if name.startswith(INCOMING) and (found := _measured(Path(where, name))) is not None:
                yield found
        folders[:] = [name for name in folders if not name.startswith(".")]


def leftovers_of_this_user() -> Iterator[Leftover]:
    """What our processes of this user have left where the system keeps temporary files."""
    for path in Path(tempfile.gettempdir()).glob(f"{_OURS}*"):
        with contextlib.suppress(OSError):
            is_mine = path.lstat().st_uid == os.getuid() and not path.is_symlink()
            if is_mine and (found := _measured(path)) is not None:
                yield found


def remove_leftover(path: Path) -> None:
    """Remove a temporary file or folder, whatever is in it; one that is gone is removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def remove_empty(folder: Path, before: datetime) -> None:
    """Remove the folder, the empty folders in it and the temporary files, as far as they were
    last changed before a time; what holds anything else stays."""
    for where, folders, files in os.walk(folder, topdown=False):
        here = Path(where)
        changed_at = _touched_at(here)
        for name in [*folders, *files]:
            if name.startswith(INCOMING):
                found = _measured(here / name)
                if found is not None and found.touched_at < before:
                    remove_leftover(here / name)
        if changed_at is not None and changed_at < before:
            with contextlib.suppress(OSError):
                here.rmdir()


def _touched_at(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.lstat().st_mtime, UTC)
    except OSError:
        return None


def _measured(path: Path) -> Leftover | None:
    """The size and the last change of all that is there; None where it has just gone."""
    try:
        status = path.lstat()
    except OSError:
        return None
    size_bytes, touched = 0, max(status.st_mtime, status.st_ctime)
    if stat.S_ISREG(status.st_mode):
        size_bytes = status.st_size
    elif stat.S_ISDIR(status.st_mode):
        for where, folders, files in os.walk(path):
            for name in [*folders, *files]:
                with contextlib.suppress(OSError):
                    inner = Path(where, name).lstat()
                    touched = max(touched, inner.st_mtime, inner.st_ctime)
                    size_bytes += inner.st_size if stat.S_ISREG(inner.st_mode) else 0
    return Leftover(path, size_bytes, datetime.fromtimestamp(touched, UTC))
