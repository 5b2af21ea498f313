"""Which device a worker computes on."""

import torch

from workers.errors import SpecMismatch
from workers.spec import Resources


def device_of(resources: Resources) -> torch.device:
    """The GPU where one is asked for, else the CPU; raises SpecMismatch where there is none."""
    if not resources.gpus_per_worker:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise SpecMismatch(
            "/resources/gpus_per_worker", "this worker has no GPU that torch can use; ask for 0"
        )
    return torch.device("cuda")
