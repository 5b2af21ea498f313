"""References to data: by name, or drawn."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from workers.spec.base import SEED_MAX, SpecModel

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


def _dataset_kind(value: Any) -> Any:
    return value.get("kind", "named") if isinstance(value, dict) else getattr(value, "kind", None)


_TOYS = ("ring", "line", "two-moons", "surface")


def _dataset_tag(value: Any) -> str | None:
    kind = _dataset_kind(value)
    return "toy" if kind in _TOYS else kind if kind == "named" else None


DatasetSpec = Annotated[
    Annotated[NamedDataset, Tag("named")] | Annotated[ToyDataset, Tag("toy")],
    Discriminator(
        _dataset_tag,
        custom_error_type="dataset_kind",
        custom_error_message="kind must be one of: named (the default), " + ", ".join(_TOYS),
    ),
]
