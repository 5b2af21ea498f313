"""idx files, as MNIST comes in: a header that declares everything, then the values."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from workers.content import PIECE_BYTES, Facts
from workers.errors import InvalidUpload
from workers.intake.arrays import Read, copy_rows
from workers.intake.limits import Limits, layout_of

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(read: Read, target: Path, limits: Limits) -> Facts:
    """Bring an idx file into normal form; raises InvalidUpload."""
    head = read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _TYPES or not 1 <= head[3] <= 4:
        raise InvalidUpload("it is no idx file: its first four bytes declare no type and axes")
    sizes = read(4 * head[3])
    if len(sizes) != 4 * head[3]:
        raise InvalidUpload("it is cut off in its header")
    dtype = np.dtype(_TYPES[head[2]])
    layout = layout_of(struct.unpack(f">{head[3]}I", sizes), dtype, limits)
    writer = copy_rows(read, layout, dtype, target)
    if read(1):
        raise InvalidUpload("there are more bytes behind the data that its header declares")
    return writer.facts("idx")


def gunzip(file: BinaryIO) -> Read:
    """Reads a gzip file's content; never holds more than a piece and what is asked for.

    Raises InvalidUpload for a damaged or truncated one.
    """
    pieces = _inflated(file)
    ready = bytearray()

    def read(size: int) -> bytes:
        while len(ready) < size and (piece := next(pieces, None)) is not None:
            ready.extend(piece)
        found = bytes(ready[:size])
        del ready[:size]
        return found

    return read


def _inflated(file: BinaryIO) -> Iterator[bytes]:
    inflater = zlib.decompressobj(wbits=31)
    pending = b""
    try:
        while not inflater.eof:
            pending = pending or file.read(PIECE_BYTES)
            if not pending:
                raise InvalidUpload("it is cut off: the gzip stream has no end")
            piece = inflater.decompress(pending, PIECE_BYTES)
            pending = inflater.unconsumed_tail
            if piece:
                yield piece
    except zlib.error as error:
        raise InvalidUpload(f"its gzip stream is damaged ({error})") from error
    if inflater.unused_data or file.read(1):
        raise InvalidUpload("there are more bytes behind the end of its gzip stream")
