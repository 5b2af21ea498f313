"""NumPy archives: one array is the data set, named ``images`` or ``data``, or the only one."""

import ast
import io
import math
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workers.content import Facts
from workers.errors import InvalidUpload
from workers.intake.archive import Archive, Member
from workers.intake.arrays import Read, copy_rows
from workers.intake.limits import Limits, layout_of

MAX_MEMBERS = 64
_MAX_HEADER_BYTES = 10_000
_LONGEST_NUMBER = 8
_LONGEST_SIDE = 1 << 40
_MAX_SIDES = 32  # of NumPy's arrays, in every version
_SIMPLE_TYPE = re.compile(r"[<>|=][a-zA-Z]\d{0,9}")


def read_npz(archive: Archive, target: Path, limits: Limits) -> Facts:
    """Bring the archive's array into normal form; raises InvalidUpload."""
    member = _chosen(archive.members)
    read = archive.open(member).read
    try:
        shape, dtype, header_bytes = _header(read)
        layout = layout_of(shape, dtype, limits)
        declared = header_bytes + math.prod(shape) * dtype.itemsize
        if declared != member.size_bytes:
            raise InvalidUpload(
                f"its header declares {declared:,} bytes, and it has {member.size_bytes:,}"
            )
        return copy_rows(read, layout, dtype, target).facts("npz")
    except InvalidUpload as error:
        raise InvalidUpload(f"array {member.name.removesuffix('.npy')!r}: {error}") from error


def read_vectors(content: bytes, values_max: int) -> NDArray[np.float64]:
    """The vectors N×D in the bytes of an archive, N being any number from 1; raises InvalidUpload.

    For a few rows that are looked at once: nothing is brought into normal form.
    """
    archive = Archive(io.BytesIO(content), MAX_MEMBERS)
    member = _chosen(archive.members)
    read = archive.open(member).read
    shape, dtype, _ = _header(read)
    if dtype.kind not in "buif" or dtype.itemsize > _LONGEST_NUMBER or len(shape) != 2:
        raise InvalidUpload(f"it is {dtype} of the shape {shape}; send N×D real numbers")
    values = math.prod(shape)
    if not 1 <= values <= values_max:
        raise InvalidUpload(f"it has {values:,} numbers; send from 1 to {values_max:,}")
    values_read = read(values * dtype.itemsize)
    if len(values_read) != values * dtype.itemsize or read(1):
        raise InvalidUpload("it does not have as many numbers as its header declares")
    rows = np.frombuffer(values_read, dtype).reshape(shape).astype(np.float64)
    if not np.isfinite(rows).all():
        raise InvalidUpload("it holds NaN or infinity")
    return rows


def _chosen(members: list[Member]) -> Member:
    if len(members) > MAX_MEMBERS:
        raise InvalidUpload(f"an npz file has at most {MAX_MEMBERS} arrays; it has {len(members)}")
    arrays = {member.name.removesuffix(".npy"): member for member in members}
    for name in ("images", "data"):
        if name in arrays:
            return arrays[name]
    if len(arrays) != 1:
        names = ", ".join(sorted(arrays)[:8])
        raise InvalidUpload(
            f"it holds several arrays ({names}); name the data set's array images or data"
        )
    return next(iter(arrays.values()))


def _header(read: Read) -> tuple[tuple[int, ...], np.dtype[np.generic], int]:
    """Shape and type of a .npy stream, and how long its header is."""
    start = read(8)
    if len(start) != 8 or start[:6] != b"\x93NUMPY" or start[6] not in (1, 2):
        raise InvalidUpload("it is no .npy array")
    length = read(2 if start[6] == 1 else 4)
    size = int.from_bytes(length, "little")
    if size > _MAX_HEADER_BYTES:
        raise InvalidUpload(f"its header has {size:,} bytes")
    shape, dtype, is_fortran = _parsed(read(size))
    if is_fortran and len(shape) > 1:
        raise InvalidUpload("it is stored column by column; save numpy.ascontiguousarray(x)")
    return shape, dtype, 8 + len(length) + size


def _parsed(text: bytes) -> tuple[tuple[int, ...], np.dtype[np.generic], bool]:
    """A header's shape, type and whether columns come first. NumPy's own parser is too forgiving:
    it runs damaged headers through a tokenizer for those of Python 2.
    """
    try:
        match ast.literal_eval(text.decode("latin-1").strip()):
            case {"descr": descr, "fortran_order": bool(is_fortran), "shape": tuple(shape)}:
                pass
            case _:
                raise InvalidUpload("its header cannot be read")
        if not isinstance(descr, str) or not _SIMPLE_TYPE.fullmatch(descr):
            raise InvalidUpload(f"its type is {descr!r:.60}; data are real numbers of one type")
        dtype = np.dtype(descr)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise InvalidUpload("its header cannot be read") from error
    # A header has room for numbers of thousands of digits, whose products nothing can print.
    if len(shape) > _MAX_SIDES or not all(
        type(size) is int and 0 <= size <= _LONGEST_SIDE for size in shape
    ):
        raise InvalidUpload("its header declares no shape that an array could have")
    return shape, dtype, is_fortran
