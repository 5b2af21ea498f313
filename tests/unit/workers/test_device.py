import pytest
import torch

from workers.device import device_of
from workers.errors import SpecMismatch
from workers.spec import Resources


def test_a_gpu_is_used_when_it_is_asked_for_and_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_of(Resources(gpus_per_worker=0)) == torch.device("cpu")
    for is_there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda is_there=is_there: is_there)
        assert device_of(Resources(gpus_per_worker=0)) == torch.device("cpu")
        if is_there:
            assert device_of(Resources(gpus_per_worker=1)) == torch.device("cuda")
            continue
        with pytest.raises(SpecMismatch, match="has no GPU that torch can use; ask for 0") as said:
            device_of(Resources(gpus_per_worker=1))
        assert said.value.pointer == "/resources/gpus_per_worker"
