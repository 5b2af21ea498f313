"""Zip archives of PNG and JPEG pictures, all of one size and mode, taken in the order of names."""

import struct
import zlib
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Transpose

from workers.content import ArrayWriter, Facts
from workers.errors import InvalidUpload
from workers.intake.archive import Archive, Member
from workers.intake.limits import Limits, check_count, check_picture, check_size

MAX_FILE_BYTES = 16 << 20
_PNG_DEPTH = 24  # place of the bits of one value, in the header
_ORIENTATION = 0x0112  # EXIF's tag
_MODES = ("L", "RGB")
# How a picture that is stored in one of EXIF's orientations is turned upright; 1 is.
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
# What Pillow raises for damaged pictures, by its own words and by its decoders' accidents.
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError),
    *(AttributeError, OverflowError, struct.error, zlib.error),
)


def read_pictures(archive: Archive, target: Path, limits: Limits) -> Facts:
    """Bring the archive's pictures into normal form; raises InvalidUpload naming the first bad."""
    members = sorted(
        (member for member in archive.members if not _is_clutter(member)), key=lambda m: m.name
    )
    check_count(len(members))
    first = _decoded(archive, members[0])
    check_size(len(members) * first.size, limits)
    with ArrayWriter(target, first.shape, "uint8") as writer:
        for member in members:
            picture = _decoded(archive, member)
            if picture.shape != first.shape:
                raise InvalidUpload(
                    f"{member.name!r} is {_words(picture)}, and {members[0].name!r} is "
                    f"{_words(first)}; all must be alike"
                )
            writer.write(picture[None])
    return writer.facts("zip")


def _is_clutter(member: Member) -> bool:
    """Whether a desktop put it there unasked."""
    path = PurePosixPath(member.name)
    return path.parts[0] == "__MACOSX" or path.name.startswith(".") or path.name == "Thumbs.db"


def _words(picture: NDArray[np.uint8]) -> str:
    colour = "in colour" if picture.ndim == 3 else "grey"
    return f"{picture.shape[0]}×{picture.shape[1]} {colour}"


def _decoded(archive: Archive, member: Member) -> NDArray[np.uint8]:
    if member.size_bytes > MAX_FILE_BYTES:
        raise InvalidUpload(f"{member.name!r} has more than {MAX_FILE_BYTES:,} bytes")
    content = archive.open(member).read(member.size_bytes)
    try:
        return _pixels(content)
    except InvalidUpload as error:
        raise InvalidUpload(f"{member.name!r}: {error}") from error


def _pixels(content: bytes) -> NDArray[np.uint8]:
    if not content.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        raise InvalidUpload("it is neither a PNG nor a JPEG picture")
    try:
        # Opening reads the header alone: size and mode are known before a pixel is decoded.
        with Image.open(BytesIO(content), formats=("PNG", "JPEG")) as image:
            check_picture(image.height, image.width)
            if image.mode not in _MODES:
                raise InvalidUpload(f"its mode is {image.mode}; save it as grey (L) or RGB")
            if image.format == "PNG" and content[_PNG_DEPTH] > 8:
                raise InvalidUpload("it has 16 bits a value; save it with 8")
            if "transparency" in image.info:
                raise InvalidUpload("one of its colours is transparent; save it without")
            image.load()
            pixels: NDArray[Any] = np.asarray(_upright(image), np.uint8)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidUpload("it declares far more pixels than a picture here may have") from error
    except _DAMAGE as error:
        raise InvalidUpload("it is damaged and cannot be decoded") from error
    return pixels


def _upright(image: Image.Image) -> Image.Image:
    """The picture as viewers show it: turned as a camera noted that it was held."""
    try:
        way = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except _DAMAGE:  # what the camera noted is lost, not the picture
        return image
    return image if way is None else image.transpose(way)
