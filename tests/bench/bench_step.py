"""Pictures per second of ``train()`` against a bare PyTorch loop in its best form.

Both run in one process on one thread, on the same pictures with the same noise source, model size,
fused Adam and clipping, and take turns every few steps, so that a busy machine slows both. Run it
with ``python -m tests.bench.bench_step``.
"""

import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.data import Dataset, load
from workers.spec import TrainSpec
from workers.spread import Spread, spread_of
from workers.train import train

BATCH = 100
LATENT = 64
SCALE = 0.5
TURN_STEPS = 15
TURNS = 6  # of each side in one repetition
REPETITIONS = 15
BAR = 0.97


class BareLoop:
    """What one would write by hand: no events, no metrics, nothing that can be resumed."""

    def __init__(self, images: Tensor, spread: Spread, kind: str) -> None:
        self._images = images
        self._spread = spread
        self._is_laplace = kind == "laplace"
        self._generator = torch.Generator().manual_seed(0)
        activation = nn.LeakyReLU(0.01, inplace=True)
        self._encoder = nn.Sequential(
            nn.Linear(784, 400),
            activation,
            nn.Linear(400, 400),
            activation,
            nn.Linear(400, 2 * LATENT),
        )
        self._decoder = nn.Sequential(
            nn.Linear(LATENT, 400),
            activation,
            nn.Linear(400, 400),
            activation,
            nn.Linear(400, 784),
            nn.Sigmoid(),
        )
        self._parameters = [*self._encoder.parameters(), *self._decoder.parameters()]
        self._optimizer = torch.optim.Adam(self._parameters, lr=1e-3, fused=True)
        self._at = len(images)
        self._order = torch.empty(0, dtype=torch.int64)

    def step(self) -> None:
        """One optimiser step."""
        if self._at >= len(self._images):
            self._order = torch.randperm(len(self._images), generator=self._generator)
            self._at = 0
        rows = self._order[self._at : self._at + BATCH]
        self._at += BATCH
        x = self._images.index_select(0, rows).to(torch.float32).mul_(1 / 255)
        y = self._spread.sample_noise(x.shape, SCALE, self._generator).add_(x)
        mean, log_std = self._encoder(y).chunk(2, -1)
        log_std = log_std.clamp(-8, 8)
        std = log_std.exp()
        noise = torch.empty(BATCH, LATENT).normal_(generator=self._generator)
        decoded = self._decoder(torch.addcmul(mean, std, noise))
        if self._is_laplace:
            distance = functional.l1_loss(decoded, y, reduction="sum") * (math.sqrt(2) / SCALE)
        else:
            distance = functional.mse_loss(decoded, y, reduction="sum") * (0.5 / SCALE**2)
        kl = (mean.square() + std.square() - 2 * log_std).sum() / 2
        self._optimizer.zero_grad()
        ((distance + kl) / BATCH).backward()
        nn.utils.clip_grad_norm_(self._parameters, 100.0)
        self._optimizer.step()


class Turns:
    """Lets both sides take turns; it is asked before each of train()'s steps whether to stop."""

    def __init__(self, bare: Callable[[], None], skip_steps: int) -> None:
        self._bare = bare
        self._steps = -skip_steps
        self._since = 0.0
        self._pair = [0.0, 0.0]
        self.times: list[tuple[float, float]] = []

    def should_stop(self) -> bool:
        """Time train()'s turn that ends here, then take the bare loop's."""
        now = time.perf_counter()
        if self._steps > 0 and self._steps % TURN_STEPS == 0:
            self._pair[0] += now - self._since
            for _ in range(TURN_STEPS):
                self._bare()
            self._pair[1] += time.perf_counter() - now
            if self._steps % (TURN_STEPS * TURNS) == 0:
                self.times.append((self._pair[0], self._pair[1]))
                self._pair = [0.0, 0.0]
        self._steps += 1
        if self._steps % TURN_STEPS == 1 or self._steps <= 1:
            self._since = time.perf_counter()
        return len(self.times) >= REPETITIONS


def measure(kind: str, data: Dataset) -> list[tuple[float, float]]:
    """Seconds of train() and of the bare loop for the same number of steps, per repetition."""
    never = 100_000
    spec = TrainSpec.model_validate(
        {
            "dataset": {"name": "mnist-10k"},
            "trainer": {
                "kind": "delta_vae",
                "spread": {"kind": kind, "scale": SCALE},
                "batch_size": BATCH,
                "epochs": 10_000,
                "evaluate_every_epochs": never,
                "grid_every_epochs": never,
            },
            "checkpoint_every_epochs": never,
            "checkpoint_at_epochs": [],
        }
    )
    bare = BareLoop(data.train, spread_of(spec.trainer.spread), kind)  # type: ignore[union-attr]
    for _ in range(2 * TURN_STEPS):
        bare.step()
    # The first epoch ends with a grid, which is not training.
    turns = Turns(bare.step, skip_steps=len(data.train) // BATCH)
    for _ in train(spec, data, should_stop=turns.should_stop):
        pass
    return turns.times


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    data = load(
        TrainSpec.model_validate(
            {"dataset": {"name": "mnist-10k"}, "trainer": {"kind": "delta_vae"}}
        ).dataset,
        Path("unused"),
    )
    pictures = BATCH * TURN_STEPS * TURNS
    print("pictures/s on one thread, MLP 784-400-400-64, batch 100")
    print(
        f"{'spread':10}{'train()':>10}{'bare loop':>12}{'ratio':>8}{'min':>8}{'max':>8}{'bar':>8}"
    )
    for kind in ("gaussian", "laplace"):
        times = measure(kind, data)
        ratios = [bare / ours for ours, bare in times]
        ours = pictures / statistics.median(t[0] for t in times)
        bare = pictures / statistics.median(t[1] for t in times)
        print(
            f"{kind:10}{ours:10.0f}{bare:12.0f}{statistics.median(ratios):8.3f}"
            f"{min(ratios):8.3f}{max(ratios):8.3f}{BAR:8.2f}"
        )


if __name__ == "__main__":
    main()
