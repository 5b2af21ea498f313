"""Files to upload, good and bad."""

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GREY = np.random.default_rng(0).integers(0, 256, (24, 5, 7), np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (24, 6, 6, 3), np.uint8)
VECTORS = np.random.default_rng(2).normal(size=(30, 3)).astype(np.float32)


def npz(compressed: bool = False, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, allow_pickle=True, **arrays)
    return buffer.getvalue()


def npz_of_shape(shape: str) -> bytes:
    """An archive whose array has that shape by its header, and no numbers."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("data.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    return buffer.getvalue()


def idx(array: NDArray[Any], kind: int = 8) -> bytes:
    head = struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def csv(array: NDArray[Any], header: str = "") -> bytes:
    lines = [",".join(repr(float(value)) for value in row) for row in array]
    return "\n".join([header] * bool(header) + lines).encode() + b"\n"


def picture(pixels: NDArray[np.uint8], form: str = "PNG", **how: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **how)
    return buffer.getvalue()


def archive(members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def pictures(array: NDArray[np.uint8], form: str = "PNG") -> dict[str, bytes]:
    return {f"faces/{n:03}.{form.lower()}": picture(rows, form) for n, rows in enumerate(array)}


def linked(content: bytes) -> bytes:
    """An archive with a symbolic link in it."""
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as file:
        link = zipfile.ZipInfo("faces/link.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        file.writestr(link, "/etc/passwd")
    return buffer.getvalue()


def enormous_png(side: int = 50_000) -> bytes:
    """A picture that declares side × side pixels and has a few bytes."""
    return _png(side, side, 8, bytes(1000))


def deep_png(width: int, height: int) -> bytes:
    """A colour picture of 16 bits a value."""
    row = b"\0" + struct.pack(">H", 0x0180) * (3 * width)
    return _png(width, height, 16, row * height)


def _png(width: int, height: int, depth: int, rows: bytes) -> bytes:
    head = struct.pack(">2I5B", width, height, depth, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    framed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def zeros_npy(shape: tuple[int, ...]) -> bytes:
    """The header of an array of zeros, without its values."""
    buffer = io.BytesIO()
    description = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, description)
    return buffer.getvalue()


def bomb(path: Path, name: str, head: bytes, zeros: int, declared: int | None = None) -> Path:
    """An archive of one member: ``head`` and so many zeros, a thousandth of them on disk.

    ``declared`` is the length that it claims, in place of the true one.
    """
    block = bytes(1 << 20)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open(name, "w") as member:
        member.write(head)
        for _ in range(zeros >> 20):
            member.write(block)
    if declared is not None:
        content = bytearray(path.read_bytes())
        length = struct.pack("<I", len(head) + (zeros >> 20 << 20))
        struct.pack_into("<I", content, content.rindex(length), declared)
        path.write_bytes(content)
    return path


GOOD: Mapping[str, bytes] = {
    "npz": npz(images=GREY, labels=np.arange(24)),
    "packed npz": npz(True, images=GREY),
    "idx": idx(GREY),
    "gzipped idx": gzip.compress(idx(GREY)),
    "csv": csv(VECTORS, "a,b,c"),
    "zip of png": archive(pictures(COLOUR)),
    "zip of jpeg": archive(pictures(COLOUR, "JPEG"), zipfile.ZIP_DEFLATED),
}
