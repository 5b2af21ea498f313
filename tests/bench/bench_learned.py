"""What a learned spread costs a step of the model, outside the rounds in which it is learned.

All arms run in one process on one thread and take turns, so that a busy machine slows all of them.
Run it with ``python -m tests.bench.bench_learned``.
"""

import statistics
import time
from pathlib import Path
from typing import Any

import torch

from workers.build import resolve
from workers.data import Dataset, load
from workers.parallel import ALONE
from workers.spec import TrainSpec
from workers.spread import Gaussian
from workers.spread.learned import LearnedNoise, Psi
from workers.spread.learned.covariance import LowRank
from workers.step import Stepper
from workers.train_state import start

TURN_STEPS, TURNS = 10, 24
LOW_RANK = {"kind": "low_rank", "rank": 20}
ARMS: dict[str, tuple[str, dict[str, Any] | None, str]] = {
    "fixed, Gaussian": ("gaussian", None, ""),
    "covariance R = 20, Gaussian": ("gaussian", {"covariance": LOW_RANK}, "1.5"),
    "fixed, Laplace": ("laplace", None, ""),
    "covariance R = 20, Laplace": ("laplace", {"covariance": LOW_RANK}, "1.5"),
    "mean transform, MLP": ("laplace", {"mean_transform": {"kind": "mlp"}}, "2.0"),
    "mean transform, convolutions": ("laplace", {"mean_transform": {"kind": "conv"}}, ""),
}


def stepper(kind: str, learned: dict[str, Any] | None, data: Dataset) -> Stepper:
    """A run at its first step; its first round is far away."""
    trainer = {"kind": "delta_vae", "spread": {"kind": kind}, "learned_spread": learned}
    spec = TrainSpec.model_validate({"dataset": {"name": "mnist-10k"}, "trainer": trainer})
    spec = resolve(spec, data.info)
    state = start(spec, data.info, torch.device("cpu"))
    if state.psi is not None:
        state.psi.observe(data.train, 1, is_fresh=True)
    return Stepper(spec, data.info, data.train, state, ALONE)


def measure(data: Dataset) -> dict[str, list[float]]:
    """Seconds a step, turn by turn, of each arm."""
    steppers = {name: stepper(kind, learned, data) for name, (kind, learned, _) in ARMS.items()}
    times: dict[str, list[float]] = {name: [] for name in ARMS}
    for turn in range(TURNS + 1):
        for name, arm in steppers.items():
            since = time.perf_counter()
            for _ in range(TURN_STEPS):
                arm.advance()
            if turn:  # the first turn warms up
                times[name].append((time.perf_counter() - since) / TURN_STEPS)
    return times


def log_density(dimensions: int, rank: int, rows: int) -> float:
    """Seconds of one low-rank log density of ``rows`` rows."""
    covariance = LowRank(dimensions, rank, 2.0, None, torch.Generator().manual_seed(0))
    spread = LearnedNoise(Gaussian(), Psi(covariance, None))
    y = torch.randn(rows, dimensions)
    mean = torch.zeros(dimensions)
    times = []
    for _ in range(20):
        since = time.perf_counter()
        spread.log_prob(y, mean, 0.5)
        times.append(time.perf_counter() - since)
    return statistics.median(times)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    spec = TrainSpec.model_validate(
        {"dataset": {"name": "mnist-10k"}, "trainer": {"kind": "delta_vae"}}
    )
    times = measure(load(spec.dataset, Path("unused")))
    print("one step of the default MLP on 28×28, batch 100, one thread, outside rounds")
    print(f"{'':32}{'ms':>8}{'÷ fixed':>10}{'bar':>8}")
    for name, (kind, _, bar) in ARMS.items():
        fixed = times["fixed, Gaussian" if kind == "gaussian" else "fixed, Laplace"]
        ratio = statistics.median(a / b for a, b in zip(times[name], fixed, strict=True))
        print(f"{name:32}{1e3 * statistics.median(times[name]):8.2f}{ratio:10.3f}{bar:>8}")
    seconds = log_density(12_288, 100, 100)
    print(f"log density of 100 rows, D = 12288, R = 100: {1e3 * seconds:.1f} ms")


if __name__ == "__main__":
    main()
