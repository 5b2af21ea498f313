"""Whether the data that a fork holds out were kept from what it takes over, too.

The first rows of an order by ``split_seed`` are held out, so under the same seed a smaller share is
a part of the larger one. Of other data nothing is known: neither of two sets with rows in common,
nor of what the parent's own parent was trained on.
"""

from collections.abc import Iterator

from workers.errors import SpecMismatch
from workers.spec.dataset import DatasetRef


def seen_by_parent(before: DatasetRef, after: DatasetRef) -> Iterator[SpecMismatch]:
    """Why a split of the same content holds out data that a checkpoint's weights were fitted to.

    Pointers are relative to the spec.
    """
    why = "as the checkpoint was trained on data that would be held out"
    if after.split_seed != before.split_seed:
        yield SpecMismatch("/dataset/split_seed", f"must stay {before.split_seed}, {why}")
    if after.held_out_fraction > before.held_out_fraction:
        yield SpecMismatch(
            "/dataset/held_out_fraction", f"must be at most {before.held_out_fraction:g}, {why}"
        )
