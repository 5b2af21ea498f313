"""Arrays that arrive as a stream of bytes, copied into normal form block by block."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workers.content import PIECE_BYTES, ArrayWriter
from workers.errors import InvalidUpload
from workers.intake.limits import Layout

Read = Callable[[int], bytes]


def copy_rows(read: Read, layout: Layout, dtype: np.dtype[np.generic], target: Path) -> ArrayWriter:
    """Read the values of ``layout`` in C order and write them into ``target``.

    ``read(n)`` gives n bytes, fewer only at the end. Raises InvalidUpload where values are
    missing or not finite.
    """
    row_bytes = math.prod(layout.datum) * dtype.itemsize
    rows_at_once = max(1, PIECE_BYTES // row_bytes)
    with ArrayWriter(target, layout.datum, layout.dtype) as writer:
        while writer.count < layout.count:
            wanted = min(rows_at_once, layout.count - writer.count) * row_bytes
            content = read(wanted)
            if len(content) != wanted:
                raise InvalidUpload(
                    f"it is cut off: {layout.count:,} data are declared, and the file ends in "
                    f"number {writer.count + len(content) // row_bytes + 1:,}"
                )
            block = np.frombuffer(content, dtype).reshape(-1, *layout.datum)
            writer.write(as_vectors(block, writer.count) if layout.dtype == "float32" else block)
    return writer


def as_vectors(block: NDArray[np.generic], first: int) -> NDArray[np.float32]:
    """The block as float32; raises InvalidUpload that names the first row that is not finite."""
    with np.errstate(over="ignore"):
        values = block.astype(np.float32)
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        column = int(np.argmin(np.isfinite(values[row])))
        raise InvalidUpload(
            f"row {first + row + 1:,}, column {column + 1:,} is {block[row, column]}, "
            "which is no finite float32"
        )
    return values
