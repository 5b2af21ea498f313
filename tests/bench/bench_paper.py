"""How long each figure of the paper takes at scale ``quick``, on one thread.

A figure is computed as a job computes it, without a service. Figure 6 has drawn colour pictures,
on which a training takes as long as on any others. Run it with
``python -m tests.bench.bench_paper``; with names behind it, those figures alone.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from tests.bench.measured.material import Kept
from workers.data import Dataset, load
from workers.events import Finished
from workers.kinds import train
from workers.paper.costs import thread_s
from workers.paper.figures import FIGURES
from workers.spec import JOB_SPEC, PaperSpec
from workers.spec.dataset import NamedDataset

BAR_S = 120.0
PICTURES, SIDE = 3400, 64


def pictures(folder: Path) -> Dataset:
    """Waves of colour, uploaded, half of them held out."""
    generator = np.random.default_rng(0)
    rows = np.linspace(0.0, 1.0, SIDE)[None, :, None, None]
    columns = np.linspace(0.0, 1.0, SIDE)[None, None, :, None]
    high, wide, begin = (6.0 * generator.random((PICTURES, 1, 1, 3)) for _ in range(3))
    waves = 0.5 + 0.5 * np.sin(high * rows + wide * columns + begin)
    file = folder / "pictures.npz"
    np.savez(file, images=(255 * waves).round().astype(np.uint8))
    return Kept(folder / "kept").uploaded("pictures", file)


def spec_of(figure: str, data: Dataset | None) -> PaperSpec:
    """The figure at its quick scale, with these data."""
    named = None
    if data is not None:
        named = NamedDataset(name="pictures", digest=data.info.digest, held_out_fraction=0.5)
    body = {"dataset": None if named is None else named.model_dump()}
    spec = JOB_SPEC.validate_python({**body, "trainer": {"kind": "paper", "figure": figure}})
    assert isinstance(spec, PaperSpec)
    return spec


def measure(figure: str, folder: Path) -> tuple[float, float | None]:
    """Seconds of a figure, and those of one thread that its job says before."""
    uploaded = pictures(folder) if figure == "6" else None
    spec = spec_of(figure, uploaded)
    data = uploaded or load(spec.dataset, folder / "cache")
    since = time.monotonic()
    last = [*train(spec, data)][-1]
    assert isinstance(last, Finished)
    assert last.reason == "completed"
    return time.monotonic() - since, thread_s(spec)


def main(figures: tuple[str, ...] = tuple(FIGURES)) -> None:
    """Print the seconds of each figure."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="spreadtrain-bench-") as folder:
        for figure in figures:
            took_s, said_s = measure(figure, Path(folder))
            said = "" if said_s is None else f", its job says {said_s:.0f} s"
            print(f"figure {figure}: {took_s:.0f} s (bar {BAR_S:.0f}{said})", flush=True)


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or tuple(FIGURES))
