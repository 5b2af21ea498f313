"""What a GPU makes of it: steps of training, precisions, and ICA, against one thread of the CPU.

Both sides run in one process. Run it with ``python -m tests.bench.bench_gpu``, where there is a
CUDA device.
"""

import statistics
from collections.abc import Callable
from functools import partial

import torch

from tests.bench import bench_step
from tests.bench.bench_gang import COLOUR, Row, data_of
from tests.bench.bench_ica import made
from tests.bench.bench_precision import PRECISIONS, stepper, with_precision
from tests.bench.bench_step import CONV, MLP, done_at
from workers.ica.fit import run
from workers.ica.options import Options
from workers.ica.priors import Laplace, Priors
from workers.ica.shard import Shard
from workers.ica.sums import Model, expect
from workers.step import Stepper

CPU, GPU = torch.device("cpu"), torch.device("cuda")
REPETITIONS = 5
ROWS = (
    Row("MLP 784-400-400-64, batch 100", MLP, 100, 200, ""),
    Row("MLP 784-400-400-64, batch 2000", MLP, 2000, 200, ""),
    Row("conv 32-64, 28×28, batch 100", CONV, 100, 100, ""),
    Row("conv 32-64-128-256, 64×64 colour, batch 100", COLOUR, 100, 50, "", (64, 64, 3)),
    Row("conv 32-64-128-256, 64×64 colour, batch 400", COLOUR, 400, 20, "", (64, 64, 3)),
)


def seconds(work: Callable[[], object], device: torch.device, repetitions: int) -> float:
    """The median of several times, after one that warms up."""
    found = []
    for turn in range(repetitions + 1):
        begin = done_at(device)
        work()
        if turn:
            found.append(done_at(device) - begin)
    return statistics.median(found)


def steps() -> None:
    """Pictures per second on both devices, in both precisions."""
    print("pictures/s of the trainer's steps: GPU float32, bfloat16; CPU float32; GPU ÷ CPU")
    for row in ROWS:
        data = data_of(row)
        rates = []
        for device, precision, count in (
            *((GPU, precision, row.steps) for precision in PRECISIONS),
            (CPU, "float32", max(1, row.steps // 50)),
        ):
            arm = stepper(with_precision(row, precision), data, device)

            take = partial(_advance, arm, count)
            rates.append(row.batch * count / seconds(take, device, 3 if device == CPU else 5))
        gpu, half, cpu = rates
        print(f"{row.name:46}{gpu:10.0f}{half:10.0f}{cpu:10.0f}{gpu / cpu:8.1f}", flush=True)
    print(f"most memory at one time: {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")


def _advance(arm: Stepper, count: int) -> None:
    for _ in range(count):
        arm.advance()


def ica() -> None:
    """E-steps and whole fits."""
    print("ICA 10×5: one E-step in float32 and float64, and a fit of N = 20000, seconds")
    for samples in (100_000, 1_000_000):
        rows, truth = made(samples, 0.2, 1)
        for dtype in (torch.float32, torch.float64):
            found = []
            for device in (GPU, CPU):
                shard = Shard.of(rows.to(device))
                model = Model(truth.to(device), 0.04, Priors((Laplace(),) * 5))
                e_step = partial(expect, shard, model, 1, dtype)
                found.append(seconds(e_step, device, 1 if device == CPU else REPETITIONS))
            gpu, cpu = found
            print(f"E-step N = {samples:8} {dtype}: GPU {gpu:.4f}, CPU {cpu:.3f}, {cpu / gpu:.0f}")
    for shape in ((10, 5), (20, 10)):
        rows, _ = made(20_000, 0.2, 1, shape=shape)
        options = Options(shape[1], 0.04, Laplace())
        gpu = seconds(partial(run, rows.to(GPU), options), GPU, REPETITIONS)
        cpu = seconds(partial(run, rows, options), CPU, 2)
        print(f"fit {shape[0]}×{shape[1]}: GPU {gpu:.3f}, CPU {cpu:.3f}", flush=True)


def main() -> None:
    """Print the tables; says so where there is no GPU."""
    if not torch.cuda.is_available():
        print("no CUDA device here")
        return
    torch.set_num_threads(1)
    print(torch.cuda.get_device_name(), torch.__version__)
    bench_step.main(gpus=1)
    print()
    steps()
    print()
    ica()


if __name__ == "__main__":
    main()
