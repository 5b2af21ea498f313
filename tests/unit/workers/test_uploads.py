from pathlib import Path

import numpy as np
import pytest
import torch

from tests.unit.workers.uploading import GREY, VECTORS, npz
from workers.artifacts import LocalStore
from workers.content import Facts, data_key, facts_key
from workers.data import describe, load
from workers.errors import DatasetChanged, DatasetUnavailable, UnknownDataset
from workers.intake import Limits, take_in
from workers.spec import NamedDataset


def stored(store: LocalStore, folder: Path, content: bytes) -> Facts:
    """What the service leaves in the store."""
    (folder / "source").write_bytes(content)
    facts = take_in(folder / "source", folder / "data.npy", Limits())
    store.put_file(data_key(facts.digest), folder / "data.npy")
    store.put(facts_key(facts.digest), facts.model_dump_json().encode())
    (folder / "data.npy").unlink()
    return facts


def ref(facts: Facts) -> NamedDataset:
    return NamedDataset(name="ours", digest=facts.digest, held_out_fraction=0.25)


@pytest.mark.parametrize("values", [GREY, VECTORS], ids=["pictures", "vectors"])
def test_a_worker_elsewhere_reads_an_upload_by_its_digest(
    tmp_path: Path, artifacts: LocalStore, values: np.ndarray
) -> None:
    facts = stored(artifacts, tmp_path, npz(data=values))
    cache = tmp_path / "another machine"
    data = load(ref(facts), cache, artifacts)
    assert data.info == describe(ref(facts), cache, artifacts)
    assert (data.info.shape, data.info.digest) == (values.shape[1:], facts.digest)
    rows = torch.cat((data.train, data.held_out)).numpy()
    expected = values.reshape(len(values), -1)
    assert rows.dtype == expected.dtype
    assert sorted(map(bytes, rows)) == sorted(map(bytes, expected))


def test_it_is_fetched_once(tmp_path: Path, artifacts: LocalStore) -> None:
    facts = stored(artifacts, tmp_path, npz(data=GREY))
    first = load(ref(facts), tmp_path, artifacts).train
    artifacts.delete(data_key(facts.digest))
    other_split = ref(facts).model_copy(update={"split_seed": 1})
    assert len(load(other_split, tmp_path, artifacts).train) == len(first)


def test_a_damaged_content_is_not_used(tmp_path: Path, artifacts: LocalStore) -> None:
    facts = stored(artifacts, tmp_path, npz(data=GREY))
    path = artifacts.root / data_key(facts.digest)
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + b"\0", whole + b"x"):
        path.write_bytes(damaged)
        with pytest.raises(DatasetUnavailable, match="is damaged in the artifact store"):
            load(ref(facts), tmp_path / "cache", artifacts)
    assert not [found for found in (tmp_path / "cache").rglob("*") if found.is_file()]


def test_a_content_that_is_gone_is_named(tmp_path: Path, artifacts: LocalStore) -> None:
    facts = stored(artifacts, tmp_path, npz(data=GREY))
    artifacts.delete(data_key(facts.digest))
    with pytest.raises(DatasetUnavailable, match="is gone from the artifact store"):
        load(ref(facts), tmp_path, artifacts)
    artifacts.delete(facts_key(facts.digest))
    for look in (load, describe):
        with pytest.raises(DatasetUnavailable, match="is not in the artifact store"):
            look(ref(facts), tmp_path, artifacts)


def test_a_name_without_a_digest_is_unknown_to_a_worker(
    tmp_path: Path, artifacts: LocalStore
) -> None:
    for look in (load, describe):
        with pytest.raises(UnknownDataset, match="no data set 'ours'"):
            look(NamedDataset(name="ours"), tmp_path, artifacts)


def test_a_built_in_name_is_never_an_upload(tmp_path: Path, artifacts: LocalStore) -> None:
    facts = stored(artifacts, tmp_path, npz(data=GREY))
    pinned = NamedDataset(name="mnist-10k", digest=facts.digest)
    with pytest.raises(DatasetChanged):
        load(pinned, tmp_path, artifacts)
