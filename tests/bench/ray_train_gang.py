"""Two workers under Ray Train's TorchTrainer, for bench_gang: trains until it is killed.

``python -m tests.bench.ray_train_gang ADDRESS FOLDER`` writes FOLDER/marks.json with the seconds
from ``fit()`` to the first line of the loop and to the first step.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer


def loop(config: dict[str, Any]) -> None:
    """The same steps as a gang's, over the process group that Ray Train made."""
    line_at = time.time()
    import torch
    import torch.distributed as dist

    from tests.bench.bench_gang import ROWS, spec_of
    from workers.data import load
    from workers.parallel import Peers
    from workers.train import train

    def all_reduce(tensor: torch.Tensor) -> torch.Tensor:
        dist.all_reduce(tensor)
        return tensor

    torch.set_num_threads(1)
    spec = spec_of(ROWS[2], workers=2)
    peers = Peers(dist.get_rank(), dist.get_world_size(), all_reduce, dist.destroy_process_group)
    data = load(spec.dataset, Path("unused"))
    first = True
    for _ in train(spec, data, peers=peers):
        if first and peers.rank == 0:
            marks = {"line": line_at - config["fit_at"], "step": time.time() - config["fit_at"]}
            path = Path(config["folder"]) / "marks.json"
            path.with_suffix(".new").write_text(json.dumps(marks))
            path.with_suffix(".new").rename(path)
        first = False


def main() -> None:
    """Join Ray, and fit."""
    address, folder = sys.argv[1:]
    ray.init(address=address, log_to_driver=False, configure_logging=False)
    trainer = TorchTrainer(
        loop,
        train_loop_config={"folder": folder, "fit_at": time.time()},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(storage_path=folder),
    )
    trainer.fit()


if __name__ == "__main__":
    main()
