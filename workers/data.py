"""Data sets by reference: what is known of them, and their training and held-out tensors.

Pictures stay uint8 in memory; a batch becomes pixel/255 in [0, 1] when it is drawn. Nothing is
ever unpickled.
"""

import gzip
import hashlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from workers import toys
from workers.errors import DatasetChanged, DatasetUnavailable, UnknownDataset
from workers.spec import NamedDataset, ToyDataset

_DEBIAN_FOLDER = Path("/usr/share/datasets")
_SHIPPED_FOLDER = Path(__file__).parent / "datasets"
_IDX_MAX_IMAGES = 70_000
_IDX_MAX_SIDE = 64

Pictures = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """What is known of a data set without training on it.

    ``shape`` is one datum's: (28, 28) for grey pictures, (H, W, C) for colour, (D,) for vectors.
    ``digest`` is that of the content; ``detail`` is the attribution, or why the data set is not
    available and what to do.
    """

    name: str
    title: str
    shape: tuple[int, ...]
    count: int
    is_image: bool
    digest: str
    available: bool
    detail: str

    @property
    def dimensions(self) -> int:
        """D, the number of values in one datum."""
        return int(np.prod(self.shape))


@dataclass(frozen=True, slots=True)
class Dataset:
    """The two splits, each N×D: uint8 for pictures, float32 for vectors."""

    info: DatasetInfo
    train: torch.Tensor
    held_out: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Named:
    """A named data set: ``find`` gives its file, ``read`` its pictures, N×H×W."""

    title: str
    detail: str
    find: Callable[[Path], Path]
    read: Callable[[Path], Pictures]


def describe(ref: NamedDataset | ToyDataset, cache_dir: Path) -> DatasetInfo:
    """What is known of a data set; cheap after the first call.

    Raises UnknownDataset and DatasetUnavailable.
    """
    if isinstance(ref, ToyDataset):
        return _describe_toy(ref)
    named = _lookup(ref.name)
    return _describe_file(ref.name, named, named.find(cache_dir))


def load(ref: NamedDataset | ToyDataset, cache_dir: Path) -> Dataset:
    """The data set, split by a permutation of ``split_seed``.

    Raises UnknownDataset, DatasetUnavailable, and DatasetChanged where the content is not what
    ``ref.digest`` pins.
    """
    info = describe(ref, cache_dir)
    if ref.digest is not None and ref.digest != info.digest:
        raise DatasetChanged(
            f"the content of {info.name} is {info.digest} here, the job is pinned to {ref.digest}; "
            "submit the job again to use the content that is here"
        )
    rows: NDArray[np.uint8] | NDArray[np.float32]
    if isinstance(ref, ToyDataset):
        rows = toys.draw(ref)
    else:
        named = _lookup(ref.name)
        rows = named.read(named.find(cache_dir)).reshape(info.count, -1)
    train, held_out = split(info.count, ref.held_out_fraction, ref.split_seed)
    return Dataset(info, torch.from_numpy(rows[train]), torch.from_numpy(rows[held_out]))


def catalogue(cache_dir: Path) -> list[DatasetInfo]:
    """Every data set that a spec can name, also those whose files are not here."""
    infos = []
    for name, named in _named().items():
        try:
            infos.append(describe(NamedDataset(name=name), cache_dir))
        except DatasetUnavailable as error:
            infos.append(DatasetInfo(name, named.title, (28, 28), 0, True, "", False, str(error)))
    return infos + [_describe_toy(ToyDataset(kind=kind)) for kind in _TOY_KINDS]


def held_out_count(count: int, fraction: float) -> int:
    """How many of ``count`` data are held out: at least one."""
    return max(1, round(count * fraction))


def split(count: int, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers of the training and the held-out split.

    The order is that of PCG64's raw output, the one stream which NumPy promises to keep.
    """
    order = np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable")
    held = held_out_count(count, fraction)
    return order[held:], order[:held]


_TOY_KINDS = get_args(ToyDataset.model_fields["kind"].annotation)


def _describe_toy(ref: ToyDataset) -> DatasetInfo:
    return DatasetInfo(
        name=ref.kind,
        title=toys.TITLES[ref.kind],
        shape=(toys.dimensions(ref.kind),),
        count=ref.samples,
        is_image=False,
        digest=toys.digest(ref),
        available=True,
        detail="Drawn from its seed when a job needs it.",
    )


def _lookup(name: str) -> _Named:
    known = _named()
    if name in known:
        return known[name]
    if name in _TOY_KINDS:
        raise UnknownDataset(f'{name} is drawn, not named: refer to it as {{"kind": "{name}"}}')
    names = ", ".join((*known, *_TOY_KINDS))
    raise UnknownDataset(f"there is no data set {name!r}; the known ones are {names}")


def _named() -> Mapping[str, _Named]:
    return {
        "mnist-10k": _Named(
            title="MNIST: 10,000 handwritten digits, 28×28 grey",
            detail="The first 10,000 training digits of MNIST, Yann LeCun and Corinna Cortes, "
            "CC BY-SA 3.0.",
            find=lambda _: _SHIPPED_FOLDER / "mnist10k.npz",
            read=_read_npz,
        ),
        "digits": _Named(
            title="Digits: 1,797 handwritten digits, 8×8 grey",
            detail="Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, "
            "CC BY 4.0, as shipped with scikit-learn.",
            find=_find_digits,
            read=_read_digits,
        ),
        "fashion-mnist": _Named(
            title="Fashion-MNIST: 60,000 pieces of clothing, 28×28 grey",
            detail="The training split of Fashion-MNIST, Zalando SE, MIT licence.",
            find=_find_fashion,
            read=_read_idx,
        ),
    }


def _describe_file(name: str, named: _Named, path: Path) -> DatasetInfo:
    status = path.stat()
    shape, digest = _fingerprint(named.read, path, status.st_size, status.st_mtime_ns)
    return DatasetInfo(
        name=name,
        title=named.title,
        shape=shape[1:],
        count=shape[0],
        is_image=True,
        digest=digest,
        available=True,
        detail=named.detail,
    )


@lru_cache(maxsize=32)
def _fingerprint(
    read: Callable[[Path], Pictures], path: Path, size_bytes: int, modified_ns: int
) -> tuple[tuple[int, ...], str]:
    """Shape and digest of a file's pictures, read again only when the file has changed."""
    del size_bytes, modified_ns  # only part of the key
    pictures = read(path)
    content = hashlib.sha256(repr(pictures.shape).encode())
    content.update(np.ascontiguousarray(pictures).data)
    return pictures.shape, "sha256:" + content.hexdigest()


def _read_npz(path: Path) -> Pictures:
    with np.load(path, allow_pickle=False) as archive:
        pictures: Pictures = np.asarray(archive["images"], dtype=np.uint8)
    return pictures


def _find_digits(cache_dir: Path) -> Path:
    del cache_dir
    # Imported where it is used: it takes a second that no other data set should pay.
    import sklearn.datasets

    return Path(sklearn.datasets.__file__)


def _read_digits(path: Path) -> Pictures:
    del path  # scikit-learn knows where its own data are
    from sklearn.datasets import load_digits

    pixels = np.asarray(load_digits().images, dtype=np.float64)  # 0 to 16
    return np.rint(pixels * (255 / 16)).astype(np.uint8)


def _find_fashion(cache_dir: Path) -> Path:
    folders = (cache_dir / "fashion-mnist", _DEBIAN_FOLDER / "fashion-mnist")
    for folder in folders:
        path = folder / "train-images-idx3-ubyte.gz"
        if path.is_file():
            return path
    raise DatasetUnavailable(
        "fashion-mnist is not on this machine: put train-images-idx3-ubyte.gz into the folder "
        "fashion-mnist of the data cache, or run: apt-get install dataset-fashion-mnist"
    )


def _read_idx(path: Path) -> Pictures:
    """Pictures of a gzipped idx3 file; no more is read than its header declares and we allow."""
    try:
        with gzip.open(path) as file:
            header = file.read(16)
            if len(header) != 16 or header[:4] != b"\x00\x00\x08\x03":
                raise DatasetUnavailable(f"{path.name} is not an idx file of pictures; replace it")
            count, rows, columns = (int(n) for n in np.frombuffer(header, ">u4", offset=4))
            if not (
                20 <= count <= _IDX_MAX_IMAGES
                and min(rows, columns) >= 1
                and max(rows, columns) <= _IDX_MAX_SIDE
            ):
                raise DatasetUnavailable(
                    f"{path.name} declares {count} pictures of {rows}×{columns}; replace it"
                )
            content = file.read(count * rows * columns)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetUnavailable(f"{path.name} cannot be read; replace it") from error
    if len(content) != count * rows * columns:
        raise DatasetUnavailable(f"{path.name} is shorter than it declares; replace it")
    return np.frombuffer(content, np.uint8).reshape(count, rows, columns).copy()
