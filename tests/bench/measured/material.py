"""The data of the studies: named, uploaded as a user would, or drawn for the toy."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from workers.artifacts import LocalStore
from workers.content import data_key, facts_key
from workers.data import Dataset, load
from workers.intake import Limits
from workers.intake.process import take_in_apart
from workers.quality import sliced_wasserstein
from workers.spec import NamedDataset

RING, WIDE, NARROW = 2, 20, 28  # dimensions of the toy's ring, and of what is around it
RADIUS, WIDE_STD, NARROW_STD = 0.6, 0.3, 0.03
TOY_ROWS, TOY_SEED = 10_000, 0


@dataclass(frozen=True)
class Kept:
    """A folder with the data cache, uploads and the train states that forks begin from."""

    folder: Path

    @property
    def cache(self) -> Path:
        """Where data sets are looked for."""
        return self.folder / "cache"

    def named(self, name: str) -> Dataset:
        """A data set by its name, half of it held out."""
        return self._load(NamedDataset(name=name))

    def uploaded(self, name: str, file: Path) -> Dataset:
        """A file of one's own, taken in as by the service; raises InvalidUpload."""
        self.folder.mkdir(parents=True, exist_ok=True)
        store, normal = self._store(), self.folder / "incoming.npy"
        facts = take_in_apart(file, normal, Limits())
        if not store.exists(facts_key(facts.digest)):
            store.put_file(data_key(facts.digest), normal)
            store.put(facts_key(facts.digest), facts.model_dump_json().encode())
        normal.unlink()
        return self._load(NamedDataset(name=name, digest=facts.digest))

    def toy(self) -> Dataset:
        """The toy of :func:`drawn_toy`, uploaded."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "toy.npz"
        np.savez(file, data=drawn_toy())
        return self.uploaded("ring-in-fifty-dimensions", file)

    def _store(self) -> LocalStore:
        return LocalStore(self.folder / "store")

    def _load(self, ref: NamedDataset) -> Dataset:
        half = ref.model_copy(update={"held_out_fraction": 0.5})
        return load(half, self.cache, self._store())


def toy_axes() -> NDArray[np.float64]:
    """Orthonormal axes of the toy, (D, D): those of the ring, then wide, then narrow ones."""
    generator = np.random.default_rng(TOY_SEED)
    axes, _ = np.linalg.qr(generator.standard_normal((RING + WIDE + NARROW,) * 2))
    return axes


def drawn_toy() -> NDArray[np.float32]:
    """A circle with Gaussian noise across it, turned into general position: (N, D) rows.

    A model of two latents can learn the circle, and nothing of the wide directions. Along the
    narrow ones the data vary least, but not by 0: there the residual E[d₀d₀ᵀ] is least, so that the
    best covariance of at most that rank has its directions among them (Ky Fan).
    """
    generator = np.random.default_rng(TOY_SEED + 1)
    angle = generator.uniform(0, 2 * np.pi, TOY_ROWS)
    ring = RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    wide = WIDE_STD * generator.standard_normal((TOY_ROWS, WIDE))
    narrow = NARROW_STD * generator.standard_normal((TOY_ROWS, NARROW))
    rows = np.concatenate([ring, wide, narrow], axis=1) @ toy_axes().T
    return rows.astype(np.float32)


def overlap(basis: Tensor) -> float:
    """‖NᵀQ‖²/R for learned Q (D, R) and the toy's narrow directions N (D, 28).

    1 where all of Q is among them, and 28/50 for directions without any knowledge.
    """
    narrow = torch.from_numpy(toy_axes()[:, RING + WIDE :])
    return float((narrow.T @ basis.double()).square().sum() / basis.shape[1])


def ring_distance(samples: Tensor, held_out: Tensor) -> float:
    """The sliced Wasserstein distance in the ring's plane alone, which two latents can learn."""
    plane = torch.from_numpy(toy_axes()[:, :RING])
    return float(sliced_wasserstein(samples.double() @ plane, held_out.double() @ plane))
