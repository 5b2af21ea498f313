"""References to data: by name, or drawn."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from workers.spec.base import SEED_MAX, SpecModel

Entries = Literal["signs", "gaussian"]
Family = Literal[
    "laplace",
    "logistic",
    "student-t-3",
    "student-t-5",
    "sparse",
    "exponential",
    "uniform",
    "half-and-half",
]

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class DatasetRef(SpecModel):
    """What every reference to data carries: its pinned content and how it is split."""

    digest: Digest | None = None
    """Content the job is pinned to; filled in at submission, and checked by the worker."""
    held_out_fraction: float = Field(default=0.1, gt=0.0, le=0.5)
    """Share of the data that training never sees."""
    split_seed: int = Field(default=0, ge=0, le=SEED_MAX)
    """Seed of the split; its own, so that runs with other seeds hold out the same data."""


class NamedDataset(DatasetRef):
    """A data set by its name, see GET /v1/datasets."""

    kind: Literal["named"] = "named"
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    """Name of the data set."""


class ToyDataset(DatasetRef):
    """A small drawn data set of vectors: ``ring``, ``line`` and ``two-moons`` in the plane, and
    ``surface``, the curved sheet in three dimensions of the paper's Figure 1."""

    kind: Literal["ring", "line", "two-moons", "surface"]
    samples: int = Field(default=10_000, ge=20, le=1_000_000)
    """Number of data drawn."""
    noise_std: float = Field(default=0.0, ge=0.0, le=10.0)
    """Standard deviation of Gaussian noise added to the drawn points."""
    seed: int = Field(default=0, ge=0, le=SEED_MAX)
    """Seed of the draw."""


class IcaDataset(DatasetRef):
    """Drawn data x = Az + γ·N(0, I) of a known mixing matrix A, which the job is then told."""

    kind: Literal["laplace-ica"]
    dimensions: int = Field(default=10, ge=1, le=256)
    """X, the length of a datum."""
    components: int = Field(default=5, ge=1, le=256)
    """Z, the number of sources; at most ``dimensions``."""
    samples: int = Field(default=20_000, ge=20, le=1_000_000)
    """N, the number of data drawn."""
    noise_std: float = Field(default=0.2, ge=0.0, le=1e3)
    """γ, the standard deviation of the noise in each dimension."""
    entries: Entries = "signs"
    """Entries of A: ±1, or standard normal. A is drawn again until its condition number is at most
    6, as far as its shape allows that."""
    sources: Family = "laplace"
    """The density of the sources, all of mean 0 and variance 1; ``half-and-half`` are Laplace and
    uniform by turns."""
    seed: int = Field(default=0, ge=0, le=SEED_MAX)
    """Seed of A, the sources and the noise."""


AnyDataset = NamedDataset | ToyDataset | IcaDataset


def _dataset_kind(value: Any) -> Any:
    return value.get("kind", "named") if isinstance(value, dict) else getattr(value, "kind", None)


_TOYS = ("ring", "line", "two-moons", "surface")


def _dataset_tag(value: Any) -> str | None:
    kind = _dataset_kind(value)
    return "toy" if kind in _TOYS else kind if kind in ("named", "laplace-ica") else None


DatasetSpec = Annotated[
    Annotated[NamedDataset, Tag("named")]
    | Annotated[ToyDataset, Tag("toy")]
    | Annotated[IcaDataset, Tag("laplace-ica")],
    Discriminator(
        _dataset_tag,
        custom_error_type="dataset_kind",
        custom_error_message="kind must be one of: named (the default), "
        + ", ".join((*_TOYS, "laplace-ica")),
    ),
]
