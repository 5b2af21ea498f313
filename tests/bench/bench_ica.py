"""ICA: error, time and cost against FastICA, the model's own MLE and the published recipe.

Both sides of each figure are computed in this run on one thread. Run it with
``python -m tests.bench.bench_ica``, or with ``--quick`` for fewer seeds and smaller data.
"""

import argparse
import math
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from workers.ica import paper
from workers.ica.align import Errors, errors
from workers.ica.drawn import FAMILIES, MixtureRecipe, draw
from workers.ica.fit import fit, run
from workers.ica.options import Options, smoothing
from workers.ica.priors import Laplace, Priors
from workers.ica.problem import Problem
from workers.ica.results import Fitted, Iteration
from workers.ica.shard import Shard
from workers.ica.steps import scoring_step
from workers.ica.sums import Model, expect
from workers.parallel import ALONE, Meeting, Peers, join
from workers.spec.dataset import Family

T = TypeVar("T")
NOISES = (0.2, 0.01, 0.0)


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    seeds: int
    large_seeds: int
    family_seeds: int
    starts: int
    recipe_iterations: int
    lengths: tuple[int, ...]
    shared_rows: int


FULL = Size(40, 10, 10, 100, 2000, (10_000, 100_000, 1_000_000, 10_000_000), 1_000_000)
QUICK = Size(8, 2, 2, 10, 5, (10_000, 100_000), 100_000)


def made(
    samples: int,
    noise: float,
    seed: int,
    family: Family = "laplace",
    shape: tuple[int, int] = (10, 5),
) -> tuple[Tensor, Tensor]:
    """Rows (N, X) and the true A."""
    drawn = draw(MixtureRecipe(*shape, samples, noise, "signs", family, seed))
    return torch.from_numpy(drawn.rows), torch.from_numpy(drawn.mixing)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What ``work`` returns, and its wall time in seconds."""
    begin = time.perf_counter()
    found = work()
    return found, time.perf_counter() - begin


def baselines(rows: Tensor, options: Options, truth: Tensor) -> tuple[Errors, Errors]:
    """FastICA's errors with both contrasts, after PCA and noise-corrected whitening."""
    problem = Problem.of(rows, options)
    return (
        errors(problem.fastica("logcosh").mixing, truth),
        errors(problem.fastica("exp").mixing, truth),
    )


def interval(ratios: list[float]) -> str:
    """Geometric mean with its 95% interval."""
    logs = np.log(ratios)
    half = 1.96 * logs.std(ddof=1) / math.sqrt(len(logs))
    low, middle, high = np.exp([logs.mean() - half, logs.mean(), logs.mean() + half])
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def accuracy(size: Size) -> None:
    """Errors against FastICA and against the MLE that starts at the truth."""
    print("error of A, 10×5, prior Laplace; ÷ FastICA: the better contrast on average, and of each")
    print("seed; excess over the MLE started at the truth, in the mean; bars: below 1, ≤ 2%")
    print(
        f"{'N':>6}{'γ':>6}{'ours':>9}{'FastICA':>9}"
        f"{'÷ better':>24}{'÷ best of both':>24}{'excess':>9}"
    )
    for samples in (1000, 5000, 20_000):
        for noise in NOISES:
            ours, logcosh, exp, floor = [], [], [], []
            for seed in range(size.large_seeds if samples > 5000 else size.seeds):
                rows, truth = made(samples, noise, seed)
                options = Options(5, noise**2, Laplace())
                ours.append(errors(run(rows, options).mixing, truth).relative)
                one, other = baselines(rows, options, truth)
                logcosh.append(one.relative)
                exp.append(other.relative)
                width = 0.0 if noise > 0.1 else smoothing(samples) / 10
                exact = Options(5, noise**2, Laplace(), truth, width=width, max_iterations=80)
                floor.append(errors(run(rows, exact).mixing, truth).relative)
            better = min(logcosh, exp, key=lambda each: float(np.mean(each)))
            best = np.minimum(logcosh, exp).tolist()
            excess = np.mean(ours) / np.mean(floor) - 1
            print(
                f"{samples:6}{noise:6g}{np.mean(ours):9.4f}{np.mean(better):9.4f}"
                f"{interval([a / b for a, b in zip(ours, better, strict=True)]):>24}"
                f"{interval([a / b for a, b in zip(ours, best, strict=True)]):>24}{excess:9.1%}",
                flush=True,
            )


def families(size: Size) -> None:
    """Mean angles with automatic priors."""
    print("mean angle in degrees, 10×5, N = 5000, γ = .2, prior auto; bar: ≤ 1.05")
    print(
        f"{'':16}{'ours':>8}{'logcosh':>9}{'exp':>8}{'ratio':>8}{'converged':>11}  priors, warnings"
    )
    for family in FAMILIES:
        angles: list[tuple[float, float, float]] = []
        names: set[str] = set()
        converged = 0
        for seed in range(size.family_seeds):
            rows, truth = made(5000, 0.2, seed, family)
            options = Options(5, 0.04)
            fitted = run(rows, options, truth=truth)
            pair = baselines(rows, options, truth)
            found = errors(fitted.mixing, truth).angle_degrees
            angles.append((found, pair[0].angle_degrees, pair[1].angle_degrees))
            names |= {prior.name for prior in fitted.priors} | set(fitted.warnings)
            converged += fitted.has_converged
        ours, logcosh, exp = np.mean(angles, axis=0)
        print(
            f"{family:16}{ours:8.3f}{logcosh:9.3f}{exp:8.3f}{ours / min(logcosh, exp):8.3f}"
            f"{converged:8}/{size.family_seeds:<2}  {', '.join(sorted(names))}",
            flush=True,
        )


def times(_: Size) -> None:
    """Seconds from data to A."""
    print(
        "seconds from data to A, N = 20000, γ = .2, best of 3; bars: 1.0 s at 10×5, 2.5 s at 20×10"
    )
    for shape, bar in (((10, 5), 1.0), ((20, 10), 2.5)):
        rows, truth = made(20_000, 0.2, 1, shape=shape)
        for prior in (Laplace(), None):
            options = Options(shape[1], 0.04, prior)
            found = [timed(partial(run, rows, options, truth=truth)) for _ in range(3)]
            theirs = min(timed(Problem.of(rows, options).fastica)[1] for _ in range(3))
            fitted = found[0][0]
            name = "auto" if prior is None else prior.name
            print(
                f"{shape[0]}×{shape[1]:<3}{name:8}ours {min(t for _, t in found):6.3f} s"
                f" ({fitted.iterations} E-steps, {fitted.reason}), FastICA {theirs:6.3f} s,"
                f" bar {bar} s",
                flush=True,
            )


def starts(size: Size) -> None:
    """How many random starts reach the optimum."""
    reached, seconds = 0, 0.0
    for seed in range(size.starts):
        rows, truth = made(5000, 0.2, seed)
        options = Options(5, 0.04, Laplace(), "random", seed=seed)
        fitted, taken = timed(partial(run, rows, options))
        seconds += taken
        best = run(rows, Options(5, 0.04, Laplace(), truth))
        reached += fitted.log_evidence > best.log_evidence - 1e-7
    print(
        f"random starts that reach the optimum of the start at the truth: {reached} of"
        f" {size.starts}, {seconds / size.starts:.3f} s each at N = 5000; bar: all"
    )


def recipe(size: Size) -> None:
    """Ours and the published recipe over time."""
    rows, truth = made(1000, 0.2, 1)
    options = Options(5, 0.04, Laplace(), "random")
    print("N = 1000, 10×5, γ = .2, from the same random A: E-steps, seconds, error")
    events = list(fit(rows, options, truth=truth))
    shown = [e for e in events if isinstance(e, Iteration)][::6]
    for event in shown:
        print(f"  ours   {event.number:5} {event.seconds:8.3f} {_relative(event.errors):8.4f}")
    if isinstance(last := events[-1], Fitted):
        print(f"  ours   {last.iterations:5} {last.seconds:8.3f} {_relative(last.errors):8.4f}")
    start, _ = Problem.of(rows, options).start()
    begun = paper.begin(start)
    every = max(1, size.recipe_iterations // 8)
    for step in paper.run(rows, begun, 0.04, iterations=size.recipe_iterations, truth=truth):
        if step.recipe.iteration % every == 0:
            print(
                f"  paper  {step.recipe.iteration:5} {step.seconds:8.3f}"
                f" {_relative(step.errors):8.4f}",
                flush=True,
            )
    whole = step.seconds / step.recipe.iteration * paper.ITERATIONS
    print(f"  paper  all {paper.ITERATIONS} iterations: {whole:.0f} s at this pace")


def _relative(found: Errors | None) -> float:
    return math.nan if found is None else found.relative


def _rows_of(samples: int, truth: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    z = torch.empty((samples, truth.shape[1])).exponential_(math.sqrt(2), generator=generator)
    z *= torch.randint(0, 2, z.shape, generator=generator, dtype=torch.int8) * 2 - 1
    noise = torch.empty((samples, len(truth))).normal_(0, 0.2, generator=generator)
    return noise.addmm_(z, truth.float().T)


def lengths(size: Size) -> None:
    """The cost of an E-step against N."""
    _, truth = made(10, 0.2, 1)
    model = Model(truth, 0.04, Priors((Laplace(),) * 5))
    print("one E-step in float32, 10×5: seconds, µs a datum, memory beyond the data in MiB")
    for samples in size.lengths:
        shard = Shard.of(_rows_of(samples, truth))
        expect(Shard.of(shard.rows[:10_000]), model, 1, torch.float32)
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
        before = _peak_kib()
        _, seconds = timed(partial(expect, shard, model, 1, torch.float32))
        grown = (_peak_kib() - before) / 1024
        print(f"{samples:10}{seconds:10.3f}{seconds / samples * 1e6:8.3f}{grown:8.1f}", flush=True)


def _peak_kib() -> int:
    """Largest resident size since the last reset, on Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _iterate(rows: int, rank: int, workers: int, address: str | None) -> float:
    """Seconds of five iterations, after one to warm up, on this worker's share of the rows."""
    torch.set_num_threads(1)
    _, truth = made(10, 0.2, 1)
    data = _rows_of(rows, truth)
    peers: Peers = ALONE
    if address is not None:
        peers = join(rank, workers, address, host="127.0.0.1")
    share = peers.share(rows)
    shard = Shard.of(data[share.begin : share.end], peers)
    with peers:
        model = Model(truth, 0.04, Priors((Laplace(),) * 5))
        for turn in range(6):
            if turn == 1:
                begin = time.perf_counter()
            sums = expect(shard, model, 1, torch.float32, peers)
            model = Model(model.mixing + scoring_step(sums, model), 0.04, model.priors)
        return time.perf_counter() - begin


def workers(size: Size) -> None:
    """Two workers against one."""
    context = multiprocessing.get_context("spawn")
    rows = size.shared_rows
    meeting = Meeting("127.0.0.1")
    with context.Pool(2) as pool:
        alone = pool.apply(_iterate, (rows, 0, 1, None))
        both = pool.starmap(_iterate, [(rows, rank, 2, meeting.address) for rank in range(2)])
    print(
        f"five iterations, N = {rows}: one worker {alone:.2f} s, two {max(both):.2f} s,"
        f" speed-up {alone / max(both):.2f}; bar 1.7"
    )


PARTS: dict[str, Callable[[Size], None]] = {
    "accuracy": accuracy,
    "families": families,
    "times": times,
    "starts": starts,
    "recipe": recipe,
    "lengths": lengths,
    "workers": workers,
}


def main(size: Size = FULL, parts: tuple[str, ...] = tuple(PARTS)) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    for part in parts:
        PARTS[part](size)
        print()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer seeds and smaller data")
    parser.add_argument(
        "parts", nargs="*", default=list(PARTS), metavar="part", help=", ".join(PARTS)
    )
    chosen = parser.parse_args()
    main(QUICK if chosen.quick else FULL, tuple(chosen.parts))
