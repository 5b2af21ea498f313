"""Pictures per second of ``train()`` against a bare PyTorch loop in its best form.

Both run in one process on one thread, on the same pictures with the same noise source, model size,
fused Adam and clipping, and take turns every few steps, so that a busy machine slows both. Run it
with ``python -m tests.bench.bench_step``.
"""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.data import Dataset, load
from workers.device import device_of
from workers.spec import TrainSpec
from workers.spread import Spread, spread_of
from workers.train import train

BATCH = 100
LATENT = 64
SCALE = 0.5
BAR = 0.97


@dataclass(frozen=True)
class Row:
    """One row of the table: what is trained, and how many steps make a turn and a repetition."""

    name: str
    kind: str
    network: dict[str, Any]
    turn_steps: int
    turns: int  # of each side in one repetition
    repetitions: int


MLP = {"kind": "mlp"}
CONV = {"kind": "conv", "channels": [32, 64]}
LAPLACE = Row("MLP 784-400-400-64, Laplace", "laplace", MLP, 15, 6, 15)
ROWS = (
    Row("MLP 784-400-400-64, Gaussian", "gaussian", MLP, 15, 6, 15),
    LAPLACE,
    Row("conv 32-64, batch norm, Laplace", "laplace", CONV, 3, 3, 9),
)


class Maps(nn.Module):
    """Rows seen as maps with the channels last in memory, which convolutions like best."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self._shape = (side, side, channels)

    def forward(self, rows: Tensor) -> Tensor:
        """(B, D) to (B, C, H, W)."""
        return rows.view(-1, *self._shape).permute(0, 3, 1, 2)


class Rows(nn.Module):
    """Maps as rows again, in the same order."""

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) to (B, D)."""
        return maps.permute(0, 2, 3, 1).flatten(1)


def bare_mlp() -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder."""
    activation = nn.LeakyReLU(0.01, inplace=True)
    encoder = nn.Sequential(
        nn.Linear(784, 400),
        activation,
        nn.Linear(400, 400),
        activation,
        nn.Linear(400, 2 * LATENT),
    )
    decoder = nn.Sequential(
        nn.Linear(LATENT, 400),
        activation,
        nn.Linear(400, 400),
        activation,
        nn.Linear(400, 784),
        nn.Sigmoid(),
    )
    return encoder, decoder


def bare_conv() -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder."""
    relu = nn.ReLU(inplace=True)

    def up(inputs: int, outputs: int) -> list[nn.Module]:
        layer = nn.ConvTranspose2d(inputs, outputs, 5, 2, 2, 1, bias=False)
        return [layer, nn.BatchNorm2d(outputs), relu]

    encoder = nn.Sequential(
        Maps(1, 28),
        *(nn.Conv2d(1, 32, 5, 2, 2, bias=False), nn.BatchNorm2d(32), relu),
        *(nn.Conv2d(32, 64, 5, 2, 2, bias=False), nn.BatchNorm2d(64), relu),
        Rows(),
        nn.Linear(7 * 7 * 64, 2 * LATENT),
    )
    decoder = nn.Sequential(
        *(nn.Linear(LATENT, 7 * 7 * 64), relu, Maps(64, 7)),
        *up(64, 32),
        *up(32, 16),
        nn.Conv2d(16, 1, 5, padding=2),
        Rows(),
        nn.Sigmoid(),
    )
    for module in (encoder, decoder):
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return encoder, decoder


class BareLoop:
    """What one would write by hand: no events, no metrics, nothing that can be resumed."""

    def __init__(self, images: Tensor, spread: Spread, row: Row) -> None:
        self._images = images
        self._spread = spread
        self._is_laplace = row.kind == "laplace"
        self._device = images.device
        self._generator = torch.Generator(self._device).manual_seed(0)
        encoder, decoder = bare_conv() if row.network is CONV else bare_mlp()
        self._encoder, self._decoder = encoder.to(self._device), decoder.to(self._device)
        self._parameters = [*self._encoder.parameters(), *self._decoder.parameters()]
        self._optimizer = torch.optim.Adam(self._parameters, lr=1e-3, fused=True)
        self._at = len(images)
        self._order = torch.empty(0, dtype=torch.int64, device=self._device)

    def step(self) -> None:
        """One optimiser step."""
        if self._at >= len(self._images):
            self._order = torch.randperm(
                len(self._images), generator=self._generator, device=self._device
            )
            self._at = 0
        rows = self._order[self._at : self._at + BATCH]
        self._at += BATCH
        x = self._images.index_select(0, rows).to(torch.float32).mul_(1 / 255)
        y = self._spread.sample_noise(x.shape, SCALE, self._generator).add_(x)
        mean, log_std = self._encoder(y).chunk(2, -1)
        log_std = log_std.clamp(-8, 8)
        std = log_std.exp()
        noise = torch.empty_like(mean).normal_(generator=self._generator)
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


def done_at(device: torch.device) -> float:
    """The time when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Turns:
    """Lets both sides take turns; it is asked before each of train()'s steps whether to stop."""

    def __init__(
        self, row: Row, bare: Callable[[], None], skip_steps: int, device: torch.device
    ) -> None:
        self._row = row
        self._device = device
        self._bare = bare
        self._steps = -skip_steps
        self._since = 0.0
        self._pair = [0.0, 0.0]
        self.times: list[tuple[float, float]] = []

    def should_stop(self) -> bool:
        """Time train()'s turn that ends here, then take the bare loop's."""
        turn = self._row.turn_steps
        if self._steps > 0 and self._steps % turn == 0:
            now = done_at(self._device)
            self._pair[0] += now - self._since
            for _ in range(turn):
                self._bare()
            self._pair[1] += done_at(self._device) - now
            if self._steps % (turn * self._row.turns) == 0:
                self.times.append((self._pair[0], self._pair[1]))
                self._pair = [0.0, 0.0]
        self._steps += 1
        if self._steps % turn == 1 or self._steps <= 1:
            self._since = time.perf_counter()
        return len(self.times) >= self._row.repetitions


def measure(row: Row, data: Dataset, gpus: int = 0) -> list[tuple[float, float]]:
    """Seconds of train() and of the bare loop for the same number of steps, per repetition."""
    never = 100_000
    spec = TrainSpec.model_validate(
        {
            "dataset": {"name": "mnist-10k"},
            "trainer": {
                "kind": "delta_vae",
                "spread": {"kind": row.kind, "scale": SCALE},
                "network": row.network,
                "batch_size": BATCH,
                "epochs": 10_000,
                "evaluate_every_epochs": never,
                "grid_every_epochs": never,
            },
            "checkpoint_every_epochs": never,
            "checkpoint_at_epochs": [],
            "resources": {"gpus_per_worker": gpus},
        }
    )
    device = device_of(spec.resources)
    spread = spread_of(spec.trainer.spread, device)  # type: ignore[union-attr]
    bare = BareLoop(data.train.to(device), spread, row)
    for _ in range(2 * row.turn_steps):
        bare.step()
    # The first epoch ends with a grid, which is not training.
    turns = Turns(row, bare.step, skip_steps=len(data.train) // BATCH, device=device)
    for _ in train(spec, data, should_stop=turns.should_stop):
        pass
    return turns.times


def main(gpus: int = 0) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    data = load(
        TrainSpec.model_validate(
            {"dataset": {"name": "mnist-10k"}, "trainer": {"kind": "delta_vae"}}
        ).dataset,
        Path("unused"),
    )
    where = "a GPU" if gpus else "one thread"
    print(f"pictures/s on {where}, 28×28, batch {BATCH}, {LATENT} latents")
    print(f"{'':32}{'train()':>10}{'bare loop':>12}{'ratio':>8}{'min':>8}{'max':>8}{'bar':>8}")
    for row in ROWS:
        if gpus:  # whose steps are short
            row = replace(row, turn_steps=100)
        pictures = BATCH * row.turn_steps * row.turns
        times = measure(row, data, gpus)
        ratios = [bare / ours for ours, bare in times]
        ours = pictures / statistics.median(t[0] for t in times)
        bare = pictures / statistics.median(t[1] for t in times)
        print(
            f"{row.name:32}{ours:10.0f}{bare:12.0f}{statistics.median(ratios):8.3f}"
            f"{min(ratios):8.3f}{max(ratios):8.3f}{BAR:8.2f}"
        )


if __name__ == "__main__":
    main()
