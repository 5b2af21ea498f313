"""CelebA: a folder of the aligned pictures (178×218 JPEG), cropped and reduced to 64×64.

The square of 140 pixels from column 19 and row 39, Lanczos to 64×64, as in the paper's experiment.
The digest is that of the files, so that it is known before they are decoded.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workers.data.info import DatasetInfo
from workers.data.kept import array_path, keep_rows, mapped, replacing
from workers.errors import DatasetUnavailable

NAME = "celeba"
TITLE = "CelebA: faces, cropped and reduced to 64×64, colour"
SIDE = 64
_SOURCE_SIZE = (178, 218)
_LEFT, _TOP, _CROP = 19, 39, 140
_RECIPE = b"spreadtrain celeba 1: crop 140 at 19,39, Lanczos to 64"
_MIN_COUNT = 20
_AT_ONCE = 64
_DETAIL = (
    "CelebA, Z. Liu, P. Luo, X. Wang and X. Tang, The Chinese University of Hong Kong; "
    "for research that is not commercial."
)


def find(cache_dir: Path) -> list[Path]:
    """The pictures in the order of their names; raises DatasetUnavailable where there are none."""
    for folder in (cache_dir / NAME / "img_align_celeba", cache_dir / NAME):
        with contextlib.suppress(OSError):
            names = sorted(entry.name for entry in os.scandir(folder) if _is_picture(entry.name))
            if len(names) >= _MIN_COUNT:
                return [folder / name for name in names]
    raise DatasetUnavailable(
        "celeba is not on this machine: put the aligned pictures (img_align_celeba, 178×218 jpg) "
        "into the folder celeba of the data cache, or link that folder to them"
    )


def _is_picture(name: str) -> bool:
    return name.endswith(".jpg") and not name.startswith(".")


def describe(cache_dir: Path) -> DatasetInfo:
    """What is known of the folder. Reads all files once, then only when one has changed."""
    paths = find(cache_dir)
    return DatasetInfo(
        name=NAME,
        title=TITLE,
        shape=(SIDE, SIDE, 3),
        count=len(paths),
        is_image=True,
        digest=_digest(paths, cache_dir),
        available=True,
        detail=_DETAIL,
    )


def read(info: DatasetInfo, cache_dir: Path) -> NDArray[Any]:
    """All pictures, N×64×64×3, decoded once and then mapped.

    Raises DatasetUnavailable that names the first file which is not as expected.
    """
    path, shape = array_path(cache_dir, info.digest), (info.count, *info.shape)
    kept = mapped(path, shape, "uint8")
    if kept is None:
        keep_rows(path, info.shape, "uint8", _decoded(find(cache_dir)))
        kept = mapped(path, shape, "uint8")
    if kept is None:
        raise DatasetUnavailable("the pictures of celeba changed while they were decoded; retry")
    return kept


def _decoded(paths: list[Path]) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(paths), _AT_ONCE):
        yield np.stack([face(path) for path in paths[start : start + _AT_ONCE]])


def face(path: Path) -> NDArray[np.uint8]:
    """One picture, cropped and reduced: 64×64×3."""
    try:
        with Image.open(path, formats=("JPEG",)) as image:
            if image.size != _SOURCE_SIZE or image.mode != "RGB":
                width, height = image.size
                raise DatasetUnavailable(
                    f"{path.name} is {width}×{height} {image.mode}; the aligned pictures are "
                    "178×218 RGB: replace it"
                )
            box = (_LEFT, _TOP, _LEFT + _CROP, _TOP + _CROP)
            small = image.crop(box).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            return np.asarray(small, np.uint8)
    except (OSError, SyntaxError, ValueError) as error:
        raise DatasetUnavailable(f"{path.name} cannot be decoded; replace it") from error


def _digest(paths: list[Path], cache_dir: Path) -> str:
    """SHA-256 of recipe, names and contents; remembered by names, sizes and times of change."""
    listing = hashlib.sha256()
    for path in paths:
        try:
            status = path.stat()
            line = f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode()
        except OSError as error:
            raise _unreadable(path) from error
        except UnicodeEncodeError as error:
            name = ascii(path.name)
            raise DatasetUnavailable(f"{name} is no name in UTF-8; rename the file") from error
        listing.update(line)
    memory = cache_dir / "arrays" / f"celeba-{listing.hexdigest()}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(memory.read_text())["digest"])
    content = hashlib.sha256(_RECIPE)
    for path in paths:
        try:
            of_file = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise _unreadable(path) from error
        content.update(f"{path.name} {of_file}\n".encode())
    digest = "sha256:" + content.hexdigest()
    # Without a cache that can be written the digest is found again each time.
    with contextlib.suppress(DatasetUnavailable), replacing(memory) as temporary:
        temporary.write_text(json.dumps({"digest": digest}))
    return digest


def _unreadable(path: Path) -> DatasetUnavailable:
    return DatasetUnavailable(f"{path.name} cannot be read; replace it")
