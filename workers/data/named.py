"""The data sets with names of ours: those that are shipped, and public ones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workers.data.idx_files import FASHION_MNIST, MNIST, PublicIdx

_FOLDER = Path(__file__).parents[1] / "datasets"


@dataclass(frozen=True, slots=True)
class Shipped:
    """A small data set that is always here; ``read`` gives its pictures, N×H×W."""

    detail: str
    read: Callable[[], NDArray[np.uint8]]


def _read_mnist_10k() -> NDArray[np.uint8]:
    with np.load(_FOLDER / "mnist10k.npz", allow_pickle=False) as archive:
        return np.asarray(archive["images"], dtype=np.uint8)


def _read_digits() -> NDArray[np.uint8]:
    # Imported where it is used: it takes a second that no other data set should pay.
    from sklearn.datasets import load_digits

    pixels = np.asarray(load_digits().images, dtype=np.float64)  # 0 to 16
    return np.rint(pixels * (255 / 16)).astype(np.uint8)


SHIPPED: Mapping[str, Shipped] = {
    "mnist-10k": Shipped(
        "The first 10,000 training digits of MNIST, Yann LeCun and Corinna Cortes, CC BY-SA 3.0.",
        _read_mnist_10k,
    ),
    "digits": Shipped(
        "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, CC BY 4.0, as "
        "shipped with scikit-learn.",
        _read_digits,
    ),
}
PUBLIC: Mapping[str, PublicIdx] = {source.name: source for source in (MNIST, FASHION_MNIST)}
TITLES: Mapping[str, str] = {
    "mnist-10k": "MNIST: 10,000 handwritten digits, 28×28 grey",
    "digits": "Digits: 1,797 handwritten digits, 8×8 grey",
    "mnist": "MNIST: 60,000 handwritten digits, 28×28 grey",
    "fashion-mnist": "Fashion-MNIST: 60,000 pieces of clothing, 28×28 grey",
}
DETAILS: Mapping[str, str] = {
    "mnist": "The training split of MNIST, Yann LeCun and Corinna Cortes, CC BY-SA 3.0.",
    "fashion-mnist": "The training split of Fashion-MNIST, Zalando SE, MIT licence.",
}
