"""What a fit takes over from a checkpoint of another one, and which changed specs allow it.

``train_state`` goes on where the other stood, so the data, the components and the method must stay;
tolerance and iterations may change, and a fit that had ended goes on with its last stage.
``weights`` begins anew from the checkpoint's mixing matrix: the data's dimensions and the number of
components must fit it, and of the same data none may be held out that it was fitted to.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from workers.data import DatasetInfo
from workers.errors import SpecMismatch
from workers.held_out import seen_by_parent
from workers.ica.methods import AGAIN, GIVEN, STATE_VERSION
from workers.spec import IcaSpec, Start

_KEPT = ("method", "outer", "components", "noise_variance", "prior", "importance_samples")


def obstacles(
    start: Start, old: IcaSpec, shape: tuple[int, ...], digest: str, spec: IcaSpec, now: DatasetInfo
) -> Iterator[SpecMismatch]:
    """Why a resolved spec cannot begin so from a checkpoint of ``old`` on data of that shape and
    digest; pointers are relative to the spec."""
    if now.shape != shape:
        yield SpecMismatch(
            "/dataset", f"its data have the shape {now.shape}, and the checkpoint's had {shape}"
        )
    before, after = old.trainer, spec.trainer
    if start == "weights":
        if after.components != before.components:
            yield SpecMismatch(
                "/trainer/components", f"must stay {before.components}, the columns of A"
            )
        if now.digest == digest:
            yield from seen_by_parent(old.dataset, spec.dataset)
        return
    otherwise = 'or begin with start "weights"'
    for name in _KEPT:
        if (kept := getattr(before, name)) != getattr(after, name):
            yield SpecMismatch(f"/trainer/{name}", f"must stay {kept!r}, {otherwise}")
    if now.digest != digest:
        yield SpecMismatch("/dataset", f"must stay what the checkpoint was fitted to, {otherwise}")
    for name in ("held_out_fraction", "split_seed"):
        if (kept := getattr(old.dataset, name)) != getattr(spec.dataset, name):
            yield SpecMismatch(
                f"/dataset/{name}", f"must stay {kept}, as sums are over the data of the split"
            )


def taken_over(start: Start, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The train state that a fork begins with, from a checkpoint's train state or weights."""
    if start == "train_state":
        return {**tensors, AGAIN: torch.tensor(1)}
    return {
        "version": torch.tensor(STATE_VERSION),
        "step": torch.tensor(0),
        GIVEN: tensors["mixing"],
    }
