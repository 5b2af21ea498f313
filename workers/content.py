"""The normal form of an uploaded data set: one .npy file and its facts, under their digest.

::

    datasets/<sha256>/data.npy      N×D float32, or N×H×W(×3) uint8; C order, little endian
                     /facts.json    written last: the content is complete

The digest of a data set, uploaded or not, is the SHA-256 of its idx encoding: two zero bytes, one
for the type, one for the number of axes, their lengths, and the values, all big endian. So the
digest of MNIST is that of its published file, and does not change with the format of an upload.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

DType = Literal["uint8", "float32"]

_IDX_TYPES: dict[str, int] = {"uint8": 0x08, "float32": 0x0D}
_STORED: dict[DType, np.dtype[Any]] = {"uint8": np.dtype("u1"), "float32": np.dtype("<f4")}
HEADER_BYTES = 128
PIECE_BYTES = 1 << 20


class Facts(BaseModel):
    """What is known of an uploaded data set.

    ``shape`` is one datum's, ``size_bytes`` that of data.npy, ``source_format`` and
    ``source_digest`` tell of the file that was sent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    digest: str
    shape: tuple[int, ...]
    count: int
    dtype: DType
    size_bytes: int
    source_format: str
    source_digest: str = ""

    @property
    def is_image(self) -> bool:
        """Whether a datum is a picture, or else a vector."""
        return self.dtype == "uint8"


def data_key(digest: str) -> str:
    """Key of a content's array."""
    return f"datasets/{_hex(digest)}/data.npy"


def facts_key(digest: str) -> str:
    """Key of a content's facts."""
    return f"datasets/{_hex(digest)}/facts.json"


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def digest_of(array: NDArray[Any]) -> str:
    """The digest of an array of uint8 or float32."""
    dtype: DType = "uint8" if array.dtype == np.uint8 else "float32"
    rows = max(1, PIECE_BYTES // max(1, array.itemsize * int(np.prod(array.shape[1:]))))
    blocks = (array[start : start + rows] for start in range(0, len(array), rows))
    stored = (np.ascontiguousarray(block, _STORED[dtype]).tobytes() for block in blocks)
    return digest_of_pieces(array.shape, dtype, stored)


def digest_of_file(path: Path, shape: Sequence[int], dtype: DType) -> str:
    """The digest of a data.npy whose shape is known; read in pieces, never mapped."""
    return digest_of_pieces(shape, dtype, _after_header(path))


def digest_of_pieces(shape: Sequence[int], dtype: DType, pieces: Iterable[bytes]) -> str:
    """The digest of values as data.npy has them; every piece holds whole values."""
    head = struct.pack(f">HBB{len(shape)}I", 0, _IDX_TYPES[dtype], len(shape), *shape)
    content = hashlib.sha256(head)
    for piece in pieces:
        is_swapped = dtype == "float32"
        content.update(np.frombuffer(piece, "<f4").astype(">f4").data if is_swapped else piece)
    return "sha256:" + content.hexdigest()


def _after_header(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(HEADER_BYTES)
        while piece := file.read(PIECE_BYTES):
            yield piece


def npy_header(shape: Sequence[int], dtype: DType) -> bytes:
    """The header of a .npy file, always of HEADER_BYTES, so that the count can be set at the end.

    Written here and not by NumPy, whose padding changes from version to version.
    """
    sizes = ", ".join(str(size) for size in shape)
    text = f"{{'descr': '{_STORED[dtype].str}', 'fortran_order': False, 'shape': ({sizes},), }}"
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", HEADER_BYTES - 10)
    return start + text.encode().ljust(HEADER_BYTES - 11) + b"\n"


class ArrayWriter:
    """Writes a data.npy row by row; in a ``with`` block, the count is set at its end."""

    def __init__(self, path: Path, datum: Sequence[int], dtype: DType) -> None:
        self.datum = tuple(datum)
        self.dtype: DType = dtype
        self.count = 0
        self._path = path
        self._file = path.open("wb")
        self._file.write(npy_header((0, *datum), dtype))

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Set the count, unless something went wrong."""
        with self._file:
            if kind is None:
                self._file.seek(0)
                self._file.write(npy_header((self.count, *self.datum), self.dtype))

    def write(self, rows: NDArray[Any]) -> None:
        """Append data of the writer's shape and type."""
        assert rows.shape[1:] == self.datum
        self._file.write(np.ascontiguousarray(rows, _STORED[self.dtype]).data)
        self.count += len(rows)

    def facts(self, source_format: str) -> Facts:
        """The facts of what was written; after the ``with`` block."""
        shape = (self.count, *self.datum)
        return Facts(
            digest=digest_of_file(self._path, shape, self.dtype),
            shape=self.datum,
            count=self.count,
            dtype=self.dtype,
            size_bytes=self._path.stat().st_size,
            source_format=source_format,
        )
