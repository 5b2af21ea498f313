"""What a run takes over from a checkpoint of another run, and which changed specs allow it.

``train_state`` goes on: weights, moving average, optimiser, step and epoch. So whatever gives a
step its meaning must stay: the data and their order into epochs, and the network. Learning rate,
noise and schedules may change; schedules count from the run's first epoch, not from the fork.
``weights`` begins at step 0 with the weights that the checkpoint shows (the average, where there
is one) and a fresh optimiser: network and data shape must stay, and of the same data none may be
held out that the weights were trained on.

Either way the fork's own record begins anew: its best checkpoint, early stopping and the means of
the epoch, as its objective may be another.
"""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from workers.build import learned_spread
from workers.checkpoint import Description
from workers.data import DatasetInfo
from workers.errors import SpecMismatch
from workers.held_out import seen_by_parent
from workers.spec import Start, TrainSpec
from workers.train_state import SPREAD, STATE_VERSION


def obstacles(
    start: Start, checkpoint: Description, spec: TrainSpec, info: DatasetInfo
) -> Iterator[SpecMismatch]:
    """Why a resolved spec for these data cannot begin so; pointers are relative to the spec."""
    old = _spec_of(checkpoint)
    before, after = old.trainer.network.model_dump(), spec.trainer.network.model_dump()
    for name in dict.fromkeys((*before, *after)):
        if before.get(name) != after.get(name):
            yield SpecMismatch(
                f"/trainer/network/{name}",
                f"must stay {before.get(name)!r}: a fork keeps its parent's network; "
                "submit a new job to train another",
            )
    yield from _obstacles_of_the_spread(old, spec)
    if info.shape != checkpoint.dataset.shape:
        yield SpecMismatch(
            "/dataset",
            f"its data have the shape {info.shape}, and the checkpoint's network was built for "
            f"{checkpoint.dataset.shape}; choose data of that shape",
        )
    if start == "train_state":
        yield from _obstacles_to_going_on(checkpoint, spec, info)
    elif info.digest == checkpoint.dataset.digest:
        yield from seen_by_parent(old.dataset, spec.dataset)


def _obstacles_of_the_spread(old: TrainSpec, new: TrainSpec) -> Iterator[SpecMismatch]:
    """What was learned of a spread goes on in the same form, or is left behind altogether.

    A fork of a fixed spread begins to learn it.
    """
    before, after = learned_spread(old), learned_spread(new)
    if before is None or after is None:
        return
    for name, form in (("covariance", ("kind", "rank", "components")), ("mean_transform", None)):
        parts = [getattr(learned, name) for learned in (before, after)]
        # Of a transform, all that is no mere bound decides what its weights are.
        dumped = [
            part and part.model_dump(include=form and set(form), exclude={"coefficient"})
            for part in parts
        ]
        if dumped[0] != dumped[1]:
            yield SpecMismatch(
                f"/trainer/learned_spread/{name}",
                f"must stay {dumped[0]}: a fork keeps what its parent learned of the spread; "
                "begin from a checkpoint with a fixed spread to learn another",
            )


def _obstacles_to_going_on(
    checkpoint: Description, spec: TrainSpec, info: DatasetInfo
) -> Iterator[SpecMismatch]:
    old, otherwise = _spec_of(checkpoint), 'or begin with start "weights"'
    if spec.trainer.kind != old.trainer.kind:
        yield SpecMismatch("/trainer/kind", f"must stay {old.trainer.kind!r}, {otherwise}")
    if info.digest != checkpoint.dataset.digest:
        yield SpecMismatch("/dataset", f"must stay what the checkpoint was trained on, {otherwise}")
    for name in ("held_out_fraction", "split_seed"):
        if (kept := getattr(old.dataset, name)) != getattr(spec.dataset, name):
            yield SpecMismatch(
                f"/dataset/{name}", f"must stay {kept}, as the split says what an epoch is made of"
            )
    if spec.trainer.batch_size != old.trainer.batch_size:
        yield SpecMismatch(
            "/trainer/batch_size",
            f"must stay {old.trainer.batch_size}, as steps and epochs are counted in it, "
            f"{otherwise}",
        )
    if spec.trainer.optimizer.ema_decay is not None and old.trainer.optimizer.ema_decay is None:
        yield SpecMismatch(
            "/trainer/optimizer/ema_decay",
            f"must stay null, as the checkpoint has no average of its weights, {otherwise}",
        )
    if spec.trainer.epochs <= checkpoint.epoch:
        yield SpecMismatch(
            "/trainer/epochs",
            f"must be more than {checkpoint.epoch:g}, where the checkpoint stands, {otherwise}",
        )


def _spec_of(checkpoint: Description) -> TrainSpec:
    assert isinstance(checkpoint.spec, TrainSpec)  # workers.kinds has seen to that
    return checkpoint.spec


def without_record(train_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A train state whose best checkpoint, early stopping and epoch's means begin anew."""
    return {**train_state, **_empty_record()}


def first_state(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The train state before the first step of a run that begins with these weights."""
    tensors = {"version": torch.tensor(STATE_VERSION), "step": torch.tensor(0), **_empty_record()}
    for name, value in weights.items():
        if name.startswith(SPREAD):
            tensors[name] = value
            continue
        tensors |= {f"weights.{name}": value, f"average.{name}": value}
    return tensors


def _empty_record() -> dict[str, Tensor]:
    return {
        "stale": torch.tensor(0),
        "best": torch.tensor([math.inf, math.inf], dtype=torch.float64),
        "epoch_rows": torch.tensor(0),
        "epoch_sums": torch.zeros(3, dtype=torch.float64),
    }
