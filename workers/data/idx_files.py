"""Pictures in gzipped idx files: on this machine already, or downloaded when first needed."""

import contextlib
import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workers.data.download import PublicFile, fetch
from workers.errors import DatasetUnavailable

DEBIAN_FOLDER = Path("/usr/share/datasets")
_MAX_IMAGES = 70_000
_MAX_SIDE = 64


@dataclass(frozen=True, slots=True)
class PublicIdx:
    """A published idx file of pictures; ``shape`` and ``digest`` are those of what is in it.

    ``name`` is that of its folder in the data cache, and in Debian's folder of data sets.
    """

    name: str
    file: PublicFile
    shape: tuple[int, int, int]
    digest: str

    def find(self, cache_dir: Path) -> Path | None:
        """The file on this machine, or None."""
        for folder in (cache_dir, DEBIAN_FOLDER):
            path = folder / self.name / self.file.name
            with contextlib.suppress(OSError):  # a folder that may not be looked into has none
                if path.is_file():
                    return path
        return None

    def get(self, cache_dir: Path) -> Path:
        """The file on this machine, downloaded if need be; raises DatasetUnavailable."""
        return self.find(cache_dir) or fetch(self.file, cache_dir / self.name)


MNIST = PublicIdx(
    name="mnist",
    file=PublicFile(
        base_url="https://storage.googleapis.com/cvdf-datasets/mnist",
        name="train-images-idx3-ubyte.gz",
        size_bytes=9_912_422,
        sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    shape=(60_000, 28, 28),
    digest="sha256:ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
)
FASHION_MNIST = PublicIdx(
    name="fashion-mnist",
    file=PublicFile(
        base_url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        name="train-images-idx3-ubyte.gz",
        size_bytes=26_421_880,
        sha256="3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    ),
    shape=(60_000, 28, 28),
    digest="sha256:c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
)


def read_idx_pictures(path: Path) -> NDArray[np.uint8]:
    """Pictures of a gzipped idx3 file; no more is read than its header declares and we allow."""
    try:
        with gzip.open(path) as file:
            header = file.read(16)
            if len(header) != 16 or header[:4] != b"\x00\x00\x08\x03":
                raise DatasetUnavailable(f"{path.name} is not an idx file of pictures; replace it")
            count, rows, columns = (int(n) for n in np.frombuffer(header, ">u4", offset=4))
            if not (
                20 <= count <= _MAX_IMAGES
                and min(rows, columns) >= 1
                and max(rows, columns) <= _MAX_SIDE
            ):
                raise DatasetUnavailable(
                    f"{path.name} declares {count} pictures of {rows}×{columns}; replace it"
                )
            content = file.read(count * rows * columns)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetUnavailable(f"{path.name} cannot be read; replace it") from error
    if len(content) != count * rows * columns:
        raise DatasetUnavailable(f"{path.name} is shorter than it declares; replace it")
    return np.frombuffer(content, np.uint8).reshape(count, rows, columns)
