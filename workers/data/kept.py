"""Arrays kept in the cache folder, whole or not at all, and mapped rather than read.

::

    arrays/<sha256>.npy               decoded once from pictures, in the order of their names
    arrays/<sha256>-<split_seed>.npy  in the order of the split, so that both parts are slices
    uploads/<sha256>.npy              fetched once from the artifact store

Those in the order of a split are as large as the data, one for each seed, and made in one pass from
the others: a sweep removes them when no job under way needs them.
"""

import contextlib
import itertools
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.content import PIECE_BYTES, ArrayWriter, DType, npy_header
from workers.data.info import split_order
from workers.errors import DatasetUnavailable

_FOLDERS = ("arrays", "uploads")
_NAME = re.compile(r"([0-9a-f]{64})(?:-([0-9]{1,20}))?")


def array_path(cache_dir: Path, digest: str) -> Path:
    """Where the decoded data of a digest are kept."""
    return cache_dir / "arrays" / f"{digest.removeprefix('sha256:')}.npy"


def mapped(path: Path, shape: tuple[int, ...], dtype: DType) -> NDArray[Any] | None:
    """A kept array of that shape and type, or None; writing to it never reaches the file."""
    try:
        with path.open("rb") as file:
            whole = file.read(len(npy_header(shape, dtype))) == npy_header(shape, dtype)
        if not whole:
            return None
        array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError):
        return None
    return array


def keep_rows(path: Path, datum: tuple[int, ...], dtype: DType, rows: Iterable[Any]) -> None:
    """Write blocks of rows into a new kept array."""
    with replacing(path) as temporary, ArrayWriter(temporary, datum, dtype) as writer:
        for block in rows:
            writer.write(block)


def in_split_order(
    cache_dir: Path,
    digest: str,
    shape: tuple[int, int],
    dtype: DType,
    split_seed: int,
    read: Callable[[], NDArray[Any]],
) -> NDArray[Any]:
    """The N×D rows in the order of the split, mapped; ``read`` gives them where none are kept."""
    natural = array_path(cache_dir, digest)
    path = natural.with_name(f"{natural.stem}-{split_seed}.npy")
    kept = mapped(path, shape, dtype)
    if kept is not None:
        with contextlib.suppress(OSError):  # a cache that is only read is swept by nobody
            os.utime(path)  # when it was last used is what a sweep asks
    else:
        rows = read().reshape(shape)
        order = split_order(shape[0], split_seed)
        at_once = max(1, PIECE_BYTES // (shape[1] * rows.itemsize))
        blocks = (rows[order[start : start + at_once]] for start in range(0, shape[0], at_once))
        keep_rows(path, shape[1:], dtype, blocks)
        kept = mapped(path, shape, dtype)
    if kept is None:
        raise DatasetUnavailable("the data were removed from the cache while they were read; retry")
    return kept


@dataclass(frozen=True, slots=True)
class KeptArray:
    """A kept array's content, its place, and the seed of the split in whose order it is, if any."""

    digest: str
    path: Path
    split_seed: int | None


def kept_arrays(cache_dir: Path) -> Iterator[KeptArray]:
    """Every kept array."""
    for path in itertools.chain(*(cache_dir.glob(f"{name}/*.npy") for name in _FOLDERS)):
        if (match := _NAME.fullmatch(path.stem)) is not None:
            seed = None if match[2] is None else int(match[2])
            yield KeptArray(f"sha256:{match[1]}", path, seed)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file that takes the path's place at the end, unless something goes wrong.

    Raises DatasetUnavailable where the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".incoming-", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DatasetUnavailable(
            f"the data cache cannot be written ({error.strerror}); make room, or set "
            "SPREADTRAIN_CACHE_DIR to a folder that can"
        ) from error
