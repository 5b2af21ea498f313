import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from service.errors import NotReady, ResultNotFound
from service.job_data import KEPT, JobData
from tests.unit.workers.test_uploads import ref, stored
from tests.unit.workers.uploading import GREY, VECTORS, npz
from workers.artifacts import LocalStore
from workers.content import data_key, facts_key
from workers.spec import NamedDataset, ToyDataset


class SlowStore(LocalStore):
    """A store whose large objects come when the test says so."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.may_go_on = threading.Event()
        self.streams = 0

    def stream(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        if key.endswith("data.npy"):
            self.streams += 1
            assert self.may_go_on.wait(30)
        return super().stream(key, start, stop)


def test_the_data_of_a_job_are_those_that_its_spec_pins(
    tmp_path: Path, artifacts: LocalStore
) -> None:
    facts = stored(artifacts, tmp_path, npz(data=GREY))
    data = JobData(tmp_path / "cache", artifacts).get(ref(facts))
    assert data.info.digest == facts.digest
    assert len(data.held_out) == round(len(GREY) / 4)
    rows = {bytes(row) for row in GREY.reshape(len(GREY), -1)}
    assert {bytes(row) for row in data.held_out.numpy()} <= rows


def test_the_last_few_data_sets_are_kept(tmp_path: Path, artifacts: LocalStore) -> None:
    data = JobData(tmp_path, artifacts)
    refs = [ToyDataset(kind="ring", samples=50, seed=seed) for seed in range(KEPT + 1)]
    first = [data.get(one) for one in refs[:KEPT]]
    assert all(data.get(one) is kept for one, kept in zip(refs, first, strict=False))
    data.get(refs[KEPT])
    assert data.get(refs[1]) is first[1]
    assert data.get(refs[0]) is not first[0]


def test_data_that_are_gone_are_said_to_be_gone(tmp_path: Path, artifacts: LocalStore) -> None:
    facts = stored(artifacts, tmp_path, npz(data=VECTORS))
    data = JobData(tmp_path / "cache", artifacts)
    artifacts.delete(data_key(facts.digest))
    with pytest.raises(ResultNotFound, match="gone from the artifact store"):
        data.get(ref(facts))
    artifacts.delete(facts_key(facts.digest))
    with pytest.raises(ResultNotFound, match="upload it again"):
        data.get(ref(facts))
    other = NamedDataset(name="digits", digest="sha256:" + "0" * 64)
    with pytest.raises(ResultNotFound, match="is pinned to"):
        data.get(other)
    with pytest.raises(ResultNotFound, match="celeba is not on this machine"):
        data.get(NamedDataset(name="celeba"))


def test_one_request_loads_and_the_others_wait_for_it_but_not_for_ever(tmp_path: Path) -> None:
    store = SlowStore(tmp_path / "artifacts")
    facts = stored(store, tmp_path, npz(data=np.arange(400, dtype=np.float32).reshape(100, 4)))
    impatient = JobData(tmp_path / "cache", store, patience_s=0.01)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(impatient.get, ref(facts))
        while not store.streams:
            threading.Event().wait(0.001)
        with pytest.raises(NotReady, match="still being fetched"):
            impatient.get(ref(facts))
        toy = ToyDataset(kind="line", samples=50)
        assert len(impatient.get(toy).held_out) == 5  # other data do not wait for it
        store.may_go_on.set()
        assert impatient.get(ref(facts)) is loading.result(30)
    assert store.streams == 1


def test_many_who_ask_at_once_load_once(tmp_path: Path) -> None:
    store = SlowStore(tmp_path / "artifacts")
    facts = stored(store, tmp_path, npz(data=VECTORS))
    data = JobData(tmp_path / "cache", store)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(data.get, ref(facts)) for _ in range(8)]
        store.may_go_on.set()
        assert len({id(one.result(30)) for one in asked}) == 1
    assert store.streams == 1
