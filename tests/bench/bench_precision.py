"""What ``precision: bfloat16`` changes: seconds of a step, bytes kept for backward, and the loss.

Both precisions run in one process on one thread; their steps take turns, and their runs have the
same seeds, so the same pictures and noise. Run it with ``python -m tests.bench.bench_precision``.
"""

import statistics
import time

import torch
from torch import Tensor

from tests.bench.bench_gang import COLOUR, Row, data_of, spec_of
from tests.bench.bench_step import CONV, MLP
from workers.build import resolve
from workers.data import Dataset
from workers.events import Metrics
from workers.parallel import ALONE
from workers.spec import TrainSpec
from workers.step import Stepper
from workers.train import train
from workers.train_state import start

PRECISIONS = ("float32", "bfloat16")
TURNS = 12
_CPU = torch.device("cpu")
EPOCHS, SEEDS = 3, (0, 1, 2)
ROWS = (
    Row("MLP 784-400-400-64, batch 100", MLP, 100, 40, ""),
    Row("conv 32-64, batch norm, batch 100", CONV, 100, 6, ""),
    Row("conv 32-64-128-256, 64×64 colour", COLOUR, 100, 1, "", (64, 64, 3)),
)


def with_precision(row: Row, precision: str, seed: int = 0, epochs: int = 10_000) -> TrainSpec:
    """The row's run; a short one is evaluated at its end."""
    asked = spec_of(row).model_dump(mode="json", exclude_unset=True)
    asked["seed"] = seed
    asked["trainer"] |= {"precision": precision, "epochs": epochs}
    if epochs == EPOCHS:
        asked["trainer"] |= {"evaluate_every_epochs": epochs}
    return TrainSpec.model_validate(asked)


def stepper(spec: TrainSpec, data: Dataset, device: torch.device = _CPU) -> Stepper:
    """A run at its first step."""
    spec = resolve(spec, data.info)
    state = start(spec, data.info, device)
    return Stepper(spec, data.info, data.train.to(device), state, ALONE)


def step_times(row: Row, steppers: list[Stepper]) -> list[list[float]]:
    """Seconds a step of each, turn by turn."""
    times: list[list[float]] = [[] for _ in steppers]
    for turn in range(TURNS + 1):
        for arm, its_times in zip(steppers, times, strict=True):
            since = time.perf_counter()
            for _ in range(row.steps):
                arm.advance()
            if turn:  # the first turn warms up
                its_times.append((time.perf_counter() - since) / row.steps)
    return times


def kept_bytes(arm: Stepper) -> int:
    """Bytes that one step keeps for its backward pass, without the weights themselves."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not (tensor.is_leaf and tensor.requires_grad):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        arm.advance()
    return sum(storages.values())


def held_out_loss(row: Row, precision: str, seed: int, data: Dataset) -> float:
    """After a few epochs, in float32 arithmetic for both."""
    spec = with_precision(row, precision, seed, EPOCHS)
    events = train(spec, data)
    losses = [
        event.values["held_out_loss_nats"]
        for event in events
        if isinstance(event, Metrics) and "held_out_loss_nats" in event.values
    ]
    return losses[-1]


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print(f"bfloat16 against float32; losses after {EPOCHS} epochs, {len(SEEDS)} seeds")
    print(
        f"{'':36}{'ms f32':>8}{'ms bf16':>9}{'ratio':>7}{'min':>6}{'max':>6}"
        f"{'MB f32':>8}{'MB bf16':>9}   held-out loss, bf16 - f32, relative"
    )
    for row in ROWS:
        data = data_of(row)
        arms = [stepper(with_precision(row, precision), data) for precision in PRECISIONS]
        full, half = step_times(row, arms)
        ratios = [b / a for a, b in zip(full, half, strict=True)]
        kept = [kept_bytes(arm) / 1e6 for arm in arms]
        line = (
            f"{row.name:36}{1e3 * statistics.median(full):8.2f}{1e3 * statistics.median(half):9.2f}"
            f"{statistics.median(ratios):7.2f}{min(ratios):6.2f}{max(ratios):6.2f}"
            f"{kept[0]:8.1f}{kept[1]:9.1f}"
        )
        print(line, end="   ", flush=True)
        for seed in SEEDS:
            a, b = (held_out_loss(row, precision, seed, data) for precision in PRECISIONS)
            print(f"{(b - a) / abs(a):+.1e}", end=" ", flush=True)
        print()


if __name__ == "__main__":
    main()
