import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

import service.datasets
from service.datasets import Datasets, Entry
from service.errors import (
    DatasetBuiltIn,
    DatasetChanged,
    DatasetExists,
    DatasetInUse,
    DatasetNotFound,
    InvalidDataset,
    InvalidSpec,
    NotReady,
    OutOfStorage,
    UploadTooLarge,
)
from service.jobs import JobState
from service.jobstore import JobStore
from service.uploads import Change, Condition
from tests.factories import request, tiny_spec
from tests.harness import Service, make_datasets
from tests.unit.workers.uploading import (
    COLOUR,
    GREY,
    VECTORS,
    archive,
    bomb,
    enormous_png,
    linked,
    npz,
    pictures,
    zeros_npy,
)
from workers.artifacts import LocalStore
from workers.content import data_key, facts_key
from workers.data import load
from workers.errors import StoreError, UnknownDataset
from workers.intake import Limits
from workers.spec import NamedDataset, TrainSpec

ANY = Condition()
MOVE = Condition(exists=True)


@pytest.fixture
def datasets(jobs: JobStore, artifacts: LocalStore, tmp_path: Path) -> Datasets:
    return make_datasets(jobs, artifacts, tmp_path / "data")


def send(
    datasets: Datasets, name: str, content: bytes, condition: Condition = ANY
) -> tuple[Entry, Change]:
    incoming = datasets.receive(name, len(content))
    try:
        for start in range(0, len(content), 1000):
            incoming.write(content[start : start + 1000])
        return datasets.take_in(name, incoming, condition)
    finally:
        incoming.discard()


def contents(artifacts: LocalStore) -> set[str]:
    """Names of the files in the store's folder of data sets."""
    return {Path(stored.key).name for stored in artifacts.list("datasets")}


def left(folder: Path) -> list[Path]:
    return [path for path in (folder / "data" / "incoming").rglob("*") if path.is_file()]


def named(name: str = "ours", digest: str | None = None) -> TrainSpec:
    ref = NamedDataset(name=name, digest=digest, held_out_fraction=0.2)
    return tiny_spec(batch_size=10).model_copy(update={"dataset": ref})


def test_every_data_set_that_a_spec_can_name_is_listed(datasets: Datasets) -> None:
    send(datasets, "ours", npz(images=GREY))
    infos = {entry.info.name: entry.info for entry in datasets.list()}
    built_in = {"mnist-10k", "digits", "mnist", "fashion-mnist", "celeba"}
    drawn = {"ring", "line", "two-moons", "surface", "laplace-ica"}
    assert set(infos) == built_in | drawn | {"ours"}
    assert (infos["mnist-10k"].shape, infos["mnist-10k"].count) == ((28, 28), 10_000)
    assert infos["surface"].shape == (3,)
    assert infos["ours"].title == "24 pictures, 5×7 grey, uploaded"
    assert infos["ours"].size_bytes == GREY.nbytes
    for name, info in infos.items():
        assert datasets.get(name).info == info
    with pytest.raises(DatasetNotFound):
        datasets.get("nothing")


def test_an_upload_is_stored_under_its_digest(
    datasets: Datasets, artifacts: LocalStore, tmp_path: Path
) -> None:
    entry, change = send(datasets, "ours", archive(pictures(COLOUR)))
    assert change is Change.CREATED
    assert contents(artifacts) == {"data.npy", "facts.json"}
    assert left(tmp_path) == []
    data = load(NamedDataset(name="ours", digest=entry.info.digest), tmp_path, artifacts)
    assert data.info.shape == (6, 6, 3)
    assert datasets.describe(NamedDataset(name="ours")) == entry.info == data.info


def test_the_same_content_is_stored_once(datasets: Datasets, artifacts: LocalStore) -> None:
    first, _ = send(datasets, "ours", npz(images=GREY))
    second, change = send(datasets, "also-ours", archive(pictures(GREY)))
    assert first.info.digest == second.info.digest
    assert change is Change.CREATED
    assert len(list(artifacts.list("datasets"))) == 2
    datasets.delete("ours", ANY)
    assert len(list(artifacts.list("datasets"))) == 2
    datasets.delete("also-ours", ANY)
    assert not contents(artifacts)


def test_a_name_moves_only_when_asked_and_the_old_content_goes(
    datasets: Datasets, artifacts: LocalStore, tmp_path: Path
) -> None:
    first, _ = send(datasets, "ours", npz(images=GREY))
    assert send(datasets, "ours", npz(images=GREY))[1] is Change.UNCHANGED
    with pytest.raises(DatasetExists):
        send(datasets, "ours", npz(data=VECTORS))
    assert len(list(artifacts.list("datasets"))) == 2
    second, change = send(datasets, "ours", npz(data=VECTORS), MOVE)
    assert (change, second.info.shape) == (Change.MOVED, (3,))
    keys = [stored.key for stored in artifacts.list("datasets")]
    assert len(keys) == 2
    assert all(second.info.digest.removeprefix("sha256:") in key for key in keys)
    assert first.upload is not None
    seen_before = Condition(frozenset({first.upload.revision}), exists=True)
    with pytest.raises(DatasetChanged):
        send(datasets, "ours", npz(images=GREY), seen_before)
    assert len(list(artifacts.list("datasets"))) == 2
    assert left(tmp_path) == []


HOSTILE: Mapping[str, tuple[bytes, str]] = {
    "text in place of npz": (b"a letter", "CSV"),
    "cut off": (npz(images=GREY)[:-30], "cut off"),
    "pictures of floats": (npz(x=np.zeros((30, 4, 4))), "float"),
    "objects": (npz(x=np.array([[object]] * 30)), "unpickled"),
    "a path that leads out": (archive({**pictures(GREY), "../a.png": b""}), "leads out"),
    "a link": (linked(archive(pictures(GREY))), "symbolic link"),
    "far too many pixels": (archive({**pictures(GREY), "a.png": enormous_png()}), "more pixels"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_refused_leaves_nothing_behind(
    datasets: Datasets, artifacts: LocalStore, tmp_path: Path, what: str
) -> None:
    content, because = HOSTILE[what]
    refused_without_a_trace(datasets, artifacts, tmp_path, content, because)


def test_a_zip_bomb_leaves_nothing_behind(
    jobs: JobStore, artifacts: LocalStore, tmp_path: Path
) -> None:
    folder, limits = tmp_path / "data" / "incoming", Limits(max_decoded_bytes=1 << 20)
    datasets = Datasets(jobs, artifacts, tmp_path, folder, limits, 1 << 30)
    zeros = 64 << 20
    file = bomb(tmp_path / "bomb.npz", "data.npy", zeros_npy((zeros >> 10, 32, 32)), zeros)
    content = file.read_bytes()
    refused_without_a_trace(datasets, artifacts, tmp_path, content, "67,108,864 bytes")


def refused_without_a_trace(
    datasets: Datasets, artifacts: LocalStore, folder: Path, content: bytes, because: str
) -> None:
    with pytest.raises(InvalidDataset, match="The upload is no data set: ") as refusal:
        send(datasets, "ours", content)
    assert because in str(refusal.value)
    assert not contents(artifacts)
    assert left(folder) == []
    with pytest.raises(DatasetNotFound):
        datasets.get("ours")


def test_too_many_bytes_are_refused_when_they_come(
    jobs: JobStore, artifacts: LocalStore, tmp_path: Path
) -> None:
    limited = Datasets(jobs, artifacts, tmp_path, tmp_path / "data" / "incoming", Limits(), 1000)
    with pytest.raises(UploadTooLarge):
        limited.receive("ours", 1001)
    incoming = limited.receive("ours", None)
    incoming.write(bytes(1000))
    with pytest.raises(UploadTooLarge, match="1,000 bytes"):
        incoming.write(b"x")
    incoming.discard()
    assert left(tmp_path) == []


def test_more_than_the_disk_holds_is_refused_before_it_comes(datasets: Datasets) -> None:
    free = shutil.disk_usage("/tmp").free
    huge = Datasets(
        datasets._jobs, datasets._artifacts, Path(), datasets._incoming_dir, Limits(), 2 * free
    )
    with pytest.raises(OutOfStorage, match="make room"):
        huge.receive("ours", free)


def test_built_in_names_stay_what_they_are(datasets: Datasets) -> None:
    for name in ("mnist-10k", "mnist", "celeba", "ring"):
        with pytest.raises(DatasetBuiltIn):
            datasets.receive(name, None)
        with pytest.raises(DatasetBuiltIn):
            datasets.delete(name, ANY)


@pytest.mark.parametrize("name", ["Ours", "../x", "", "a" * 65, "-x", "a b", "ü"])
def test_a_name_that_a_spec_could_not_hold_is_refused(datasets: Datasets, name: str) -> None:
    with pytest.raises(InvalidDataset) as refusal:
        datasets.receive(name, None)
    assert refusal.value.errors[0].pointer == "/path/name"


def test_a_job_trains_on_an_upload_and_keeps_it(service: Service, tmp_path: Path) -> None:
    first, _ = send(service.datasets, "ours", npz(images=GREY))
    job = service.submit(request(named()))
    assert job.spec.data_digest == first.info.digest
    with pytest.raises(DatasetInUse) as refusal:
        service.datasets.delete("ours", ANY)
    assert refusal.value.jobs == (job.id,)
    # The name moves on and is deleted, and the job still trains on what it was submitted with.
    send(service.datasets, "ours", npz(data=VECTORS), MOVE)
    service.datasets.delete("ours", ANY)
    ended = service.run_to_end(job)
    assert ended.state is JobState.SUCCEEDED, ended.message
    again = service.submit(request(named(digest=first.info.digest)))
    assert again.spec == job.spec


def test_a_name_or_a_content_that_is_unknown_is_invalid(service: Service) -> None:
    with pytest.raises(InvalidSpec) as refusal:
        service.submit(request(named("nothing")))
    assert "the known ones are mnist-10k" in refusal.value.errors[0].message
    with pytest.raises(InvalidSpec) as refusal:
        service.submit(request(named(digest="sha256:" + "0" * 64)))
    assert "not in the artifact store" in refusal.value.errors[0].message


def test_an_unknown_name_lists_the_uploads_too(datasets: Datasets) -> None:
    send(datasets, "ours", npz(images=GREY))
    with pytest.raises(UnknownDataset, match="laplace-ica, ours"):
        datasets.describe(NamedDataset(name="hours"))


def test_the_count_of_a_pinned_content_is_found_once_or_not_known(
    datasets: Datasets, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, _ = send(datasets, "ours", npz(images=GREY))
    pinned = NamedDataset(name="ours", digest=entry.info.digest)
    assert datasets.count_of(pinned) == len(GREY)
    other = "sha256:" + "0" * 64
    unknown = [("ours", other), ("mnist-10k", other), ("hours", None), ("hours", other)]
    assert {datasets.count_of(NamedDataset(name=n, digest=d)) for n, d in unknown} == {None}
    asked: list[object] = []
    monkeypatch.setattr(datasets, "describe", asked.append)
    assert datasets.count_of(pinned) == len(GREY)
    assert asked == []


def test_an_upload_that_was_cut_off_in_the_store_is_completed_by_the_next(
    datasets: Datasets, artifacts: LocalStore
) -> None:
    entry, _ = send(datasets, "ours", npz(images=GREY))
    [facts] = [s.key for s in artifacts.list("datasets") if s.key.endswith("facts.json")]
    artifacts.delete(facts)
    send(datasets, "ours", npz(images=GREY))
    assert contents(artifacts) == {"data.npy", "facts.json"}
    assert torch.is_tensor(
        load(
            NamedDataset(name="ours", digest=entry.info.digest), Path(artifacts.root), artifacts
        ).train
    )


class Watched(LocalStore):
    """A store that lets something happen once a large file is there, one time."""

    meanwhile: Callable[[], None] | None = None

    def put_file(self, key: str, path: Path) -> None:
        super().put_file(key, path)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()


def test_nobody_waits_while_the_store_takes_an_upload(jobs: JobStore, tmp_path: Path) -> None:
    store = Watched(tmp_path / "artifacts")
    datasets = make_datasets(jobs, store, tmp_path / "data")

    def send_another() -> None:
        assert not datasets._changing.locked()  # or what follows would wait for ever
        send(datasets, "small", npz(data=VECTORS))

    store.meanwhile = send_another
    send(datasets, "large", npz(images=GREY))
    assert [upload.name for upload in jobs.uploads()] == ["large", "small"]


def test_a_content_that_is_removed_before_it_has_a_name_is_stored_again(
    jobs: JobStore, tmp_path: Path
) -> None:
    store = Watched(tmp_path / "artifacts")
    datasets = make_datasets(jobs, store, tmp_path / "data")
    send(datasets, "taken", npz(data=VECTORS))

    def refuse() -> None:
        """The same content, for a name that would have to move: it has no user then, and goes."""
        with pytest.raises(DatasetExists):
            send(datasets, "taken", npz(images=GREY))
        assert len(list(store.list("datasets"))) == 2  # those of the other content

    store.meanwhile = refuse
    entry, _ = send(datasets, "ours", npz(images=GREY))
    assert entry.upload is not None
    assert store.exists(data_key(entry.upload.facts.digest))
    assert store.exists(facts_key(entry.upload.facts.digest))


def test_a_store_that_does_not_answer_leaves_no_name(
    jobs: JobStore, artifacts: LocalStore, tmp_path: Path
) -> None:
    datasets = make_datasets(jobs, artifacts, tmp_path / "data")
    shutil.rmtree(artifacts.root)
    artifacts.root.write_bytes(b"a file where the folder was")
    with pytest.raises(NotReady):
        send(datasets, "ours", npz(images=GREY))
    assert jobs.uploads() == []
    assert left(tmp_path) == []
    with pytest.raises(StoreError):
        artifacts.put("k", b"")


def test_a_service_that_stops_does_not_wait_for_a_check(
    jobs: JobStore, artifacts: LocalStore, tmp_path: Path
) -> None:
    folder = tmp_path / "data" / "incoming"
    datasets = Datasets(jobs, artifacts, tmp_path, folder, Limits(), 1 << 30)
    shape = (1 << 20, 32, 32)
    file = bomb(tmp_path / "large.npz", "data.npy", zeros_npy(shape), 1 << 30)
    threading.Timer(0.5, datasets.close).start()
    with pytest.raises(NotReady, match="the service is stopping"):
        send(datasets, "ours", file.read_bytes())
    assert left(tmp_path) == []
    assert jobs.uploads() == []


def test_what_a_killed_service_left_is_removed_at_the_start(
    datasets: Datasets, tmp_path: Path
) -> None:
    incoming = datasets.receive("ours", None)
    incoming.write(b"half")
    incoming.finish()
    assert left(tmp_path)
    datasets.clean()
    assert left(tmp_path) == []
    send(datasets, "ours", npz(images=GREY))


def test_an_upload_of_no_declared_length_leaves_the_reserve(
    datasets: Datasets, monkeypatch: pytest.MonkeyPatch
) -> None:
    incoming = datasets.receive("endless", None)
    monkeypatch.setattr(service.datasets, "RESERVE_BYTES", 1 << 62)  # others fill the disk
    monkeypatch.setattr(service.datasets, "LOOK_BYTES", 1000)
    incoming.write(b"x" * 999)
    with pytest.raises(OutOfStorage, match="make room"):
        incoming.write(b"x")
    incoming.discard()
    assert not incoming.folder.exists()
