"""What every artifact store must do; one body over all of them."""

import os
import secrets
import tempfile
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.s3_servers import BUCKET, Proxy
from workers.artifacts import ArtifactStore, LocalStore, open_store
from workers.artifacts.leftovers import temporary_folder
from workers.artifacts.s3.client import begin, connect
from workers.artifacts.s3.location import S3Location
from workers.artifacts.s3.uploads import PART_BYTES
from workers.errors import ArtifactExists, ArtifactNotFound, StoreError

STORES = ("local", "moto", "seaweedfs", "limited")
LARGE = 2 * PART_BYTES + 12_345


def limited(request: pytest.FixtureRequest) -> str:
    """moto behind a server that knows no conditions, batches, ranges and checksums."""
    proxy: Proxy = request.getfixturevalue("moto_proxy")
    proxy.is_limited = True
    return proxy.endpoint


ENDPOINTS: dict[str, Callable[[pytest.FixtureRequest], str]] = {
    "moto": lambda request: str(request.getfixturevalue("moto_endpoint")),
    "seaweedfs": lambda request: str(request.getfixturevalue("seaweedfs_endpoint")),
    "limited": limited,
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path, s3_credentials: None) -> ArtifactStore:
    if request.param == "local":
        return open_store((tmp_path / "a folder").as_uri())
    endpoint = ENDPOINTS[request.param](request)
    return open_store(f"s3://{BUCKET}/{secrets.token_hex(8)}/runs?endpoint={endpoint}")


def file_of(folder: Path, content: bytes) -> Path:
    path = folder / "content"
    path.write_bytes(content)
    return path


def test_what_is_put_comes_back(store: ArtifactStore) -> None:
    content = bytes(range(256)) * 8192
    store.put("jobs/a/weights", content)
    assert store.get("jobs/a/weights") == content
    assert store.size("jobs/a/weights") == len(content)
    assert all(len(piece) <= 1 << 20 for piece in store.stream("jobs/a/weights"))


def test_a_file_comes_back_and_outlives_its_source(store: ArtifactStore, tmp_path: Path) -> None:
    content = bytes(range(256)) * 8192
    source = tmp_path / "source"
    source.write_bytes(content)
    store.put_file("datasets/a/data.npy", source)
    source.unlink()
    assert store.get("datasets/a/data.npy") == content


def test_a_file_never_replaces_what_is_there(store: ArtifactStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"second")
    store.put("k", b"first")
    with pytest.raises(ArtifactExists):
        store.put_file("k", source)
    assert store.get("k") == b"first"
    with pytest.raises(StoreError):
        store.put_file("k2", tmp_path / "nothing")
    assert not store.exists("k2")


@pytest.mark.parametrize(("start", "stop"), [(0, 4), (3, 10), (9, None), (10, 10), (0, None)])
def test_a_range_is_cut_like_a_slice(store: ArtifactStore, start: int, stop: int | None) -> None:
    store.put("k", b"0123456789")
    assert b"".join(store.stream("k", start, stop)) == b"0123456789"[start:stop]


def test_a_key_is_never_rewritten(store: ArtifactStore) -> None:
    store.put("k", b"first")
    with pytest.raises(ArtifactExists):
        store.put("k", b"second")
    assert store.get("k") == b"first"


def test_the_same_content_again_is_the_same_fact(store: ArtifactStore, tmp_path: Path) -> None:
    store.put("k", b"a fact")
    store.put("k", b"a fact")
    store.put_file("k", file_of(tmp_path, b"a fact"))
    with pytest.raises(ArtifactExists):
        store.put_file("k", file_of(tmp_path, b"a lie?"))
    assert store.get("k") == b"a fact"


@pytest.mark.parametrize("size_bytes", [0, 1000, PART_BYTES, PART_BYTES + 1, LARGE])
def test_a_file_comes_back_as_it_went(
    size_bytes: int, store: ArtifactStore, tmp_path: Path
) -> None:
    content = os.urandom(size_bytes)
    store.put_file("files/one", file_of(tmp_path, content))
    assert store.size("files/one") == size_bytes
    assert store.get("files/one") == content
    with store.open_file("files/one") as path:
        assert path.read_bytes() == content
    store.put_file("files/one", file_of(tmp_path, content))
    if size_bytes:
        other = bytes([content[0] ^ 1]) + content[1:]
        with pytest.raises(ArtifactExists):
            store.put_file("files/one", file_of(tmp_path, other))
        assert store.get("files/one") == content


def test_a_file_that_is_not_there_is_an_error(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        store.put_file("k", tmp_path / "nothing")
    assert not store.exists("k")
    with pytest.raises(ArtifactNotFound), store.open_file("k"):
        pass


def test_staged_files_are_no_objects_and_leave_nothing(store: ArtifactStore) -> None:
    with store.staging() as folder:
        (folder / "half").write_bytes(b"half of it")
        assert [stored.key for stored in store.list("jobs")] == []
        store.put_file("jobs/whole", folder / "half")
    assert not folder.exists()
    assert [stored.key for stored in store.list("jobs")] == ["jobs/whole"]
    assert store.get("jobs/whole") == b"half of it"


# moto does not put atomically, and looking before writing is safe for one writer only.
@pytest.mark.parametrize("store", ["local", "seaweedfs"], indirect=True)
def test_of_racing_writers_exactly_one_wins(store: ArtifactStore) -> None:
    winners: list[int] = []
    barrier = threading.Barrier(8)

    def write(number: int) -> None:
        barrier.wait()
        try:
            store.put("contested", f"{number}".encode() * 10_000)
        except ArtifactExists:
            return
        winners.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
    assert store.get("contested") == f"{winners[0]}".encode() * 10_000


def test_what_is_missing_is_named_at_once(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactNotFound, match="no artifact nothing/here"):
        store.stream("nothing/here")
    with pytest.raises(ArtifactNotFound):
        store.size("nothing/here")
    assert not store.exists("nothing/here")


def test_a_prefix_lists_its_objects_in_order(store: ArtifactStore) -> None:
    for key in ("j/b", "j/a/2", "j/a/1", "jj", "k/1"):
        store.put(key, key.encode())
    assert [stored.key for stored in store.list("j")] == ["j/a/1", "j/a/2", "j/b"]
    assert [stored.size_bytes for stored in store.list("j/a")] == [5, 5]
    assert list(store.list("nothing")) == []


def test_deleting_twice_is_as_deleting_once(store: ArtifactStore) -> None:
    store.put("k", b"x")
    store.delete("k")
    store.delete("k")
    assert not store.exists("k")
    store.put("k", b"y")
    assert store.get("k") == b"y"


def test_many_are_deleted_at_once_whether_they_are_there_or_not(store: ArtifactStore) -> None:
    for number in range(5):
        store.put(f"j/{number}", b"x")
    store.delete_many([f"j/{number}" for number in range(1, 40)])
    store.delete_many([])
    assert [stored.key for stored in store.list("j")] == ["j/0"]


def test_a_listing_has_folders_together_and_tells_the_age(store: ArtifactStore) -> None:
    keys = ["j/a-b", "j/a/1", "j/a0", "j/a.b", "j/B", "j/a/c/d", "j/a_"]
    before = store.now()
    for key in keys:
        store.put(key, b"x")
    found = list(store.list("j"))
    # Servers differ in whether "a/" or "a-b" comes first; what is below "a" comes in one piece.
    assert sorted(stored.key for stored in found) == sorted(keys)
    below = [index for index, stored in enumerate(found) if stored.key.startswith("j/a/")]
    assert below == [below[0], below[0] + 1]
    # Servers tell whole seconds.
    slack = timedelta(seconds=1)
    assert all(before - slack <= stored.modified_at <= store.now() + slack for stored in found)
    assert abs(store.now() - datetime.now(UTC)) < timedelta(seconds=60)
    assert list(store.list("probes")) == []


def unfinished_write(store: ArtifactStore, key: str) -> int:
    """What a process leaves that is killed while it writes; its size in bytes."""
    if isinstance(store, LocalStore):
        path = store.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(".incoming-half").write_bytes(b"half of it")
        return 10
    location = S3Location.parse(store.uri)
    target = {"Bucket": location.bucket, "Key": location.name(key)}
    server = connect(begin(location), location, location.endpoint)
    upload = server.create_multipart_upload(**target)["UploadId"]
    server.upload_part(**target, UploadId=upload, PartNumber=1, Body=b"half of it")
    return 10


def in_store(store: ArtifactStore) -> list[str]:
    """Unfinished writes in the store itself; temporary files of this machine are not its alone."""
    return [
        write.name
        for write in store.unfinished()
        if not write.name.startswith(".incoming-spreadtrain-")
    ]


def test_a_write_that_was_not_ended_is_found_and_given_up(store: ArtifactStore) -> None:
    store.put("jobs/a/whole", b"x")
    size_bytes = unfinished_write(store, "jobs/a/weights")
    [write] = [write for write in store.unfinished() if write.name.startswith("jobs/a/")]
    assert write.size_bytes == size_bytes
    assert abs(write.touched_at - store.now()) < timedelta(seconds=60)
    assert [stored.key for stored in store.list("jobs")] == ["jobs/a/whole"]
    store.discard(write)
    store.discard(write)
    assert in_store(store) == []
    assert store.get("jobs/a/whole") == b"x"
    store.put("jobs/a/weights", b"again")
    assert store.get("jobs/a/weights") == b"again"


def test_what_is_unfinished_in_another_store_is_not_seen(store: ArtifactStore) -> None:
    if isinstance(store, LocalStore):
        other: ArtifactStore = LocalStore(store.root.parent / "other")
    else:
        other = open_store(store.uri.replace("/runs?", "/runs2?"))
    unfinished_write(other, "jobs/a/weights")
    other.put("jobs/a/whole", b"x")
    assert in_store(store) == []
    assert list(store.list("jobs")) == []
    assert len(in_store(other)) == 1


def test_a_pruned_prefix_keeps_its_objects_and_nothing_else(store: ArtifactStore) -> None:
    store.put("jobs/a/x/whole", b"x")
    store.put("jobs/a/y/gone", b"x")
    store.delete("jobs/a/y/gone")
    unfinished_write(store, "jobs/a/y/z/weights")
    unfinished_write(store, "jobs/b/weights")
    store.prune("jobs/a")
    store.prune("jobs/none")
    [left] = in_store(store)
    assert left.startswith("jobs/b/")
    assert [stored.key for stored in store.list("jobs")] == ["jobs/a/x/whole"]
    if isinstance(store, LocalStore):
        assert sorted(path.name for path in (store.root / "jobs" / "a").iterdir()) == ["x"]


def test_staged_files_of_a_killed_process_are_found(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with store.staging() as folder:
        (folder / "weights").write_bytes(b"half of it")
        [write] = [write for write in store.unfinished() if folder.name in write.name]
        assert write.size_bytes == 10
        store.discard(write)
        assert not folder.exists()


def test_temporary_files_of_others_are_left_alone(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / ".incoming-of-another-program").write_bytes(b"x")
    (tmp_path / "precious").mkdir()
    (tmp_path / ".incoming-spreadtrain-link").symlink_to(tmp_path / "precious")
    with temporary_folder() as ours:
        assert [write.name for write in store.unfinished()] == [ours.name]


@pytest.mark.parametrize("store", ["moto", "seaweedfs"], indirect=True)
def test_more_than_a_page_are_listed_and_deleted(store: ArtifactStore) -> None:
    keys = [f"j/{number:04d}" for number in range(1005)]
    for key in keys:
        store.put(key, b"")
    assert [stored.key for stored in store.list("j")] == keys
    store.delete_many(keys)
    assert list(store.list("j")) == []


@pytest.mark.parametrize(
    "key",
    ["../outside", "a/../../b", "/etc/passwd", "a//b", "", ".hidden", "a/.incoming-x", "a\x00b"],
)
def test_a_key_cannot_leave_the_store(store: ArtifactStore, key: str) -> None:
    with pytest.raises(StoreError):
        store.put(key, b"x")
    with pytest.raises(ArtifactNotFound):
        store.get(key)


def test_the_store_checks_itself_and_leaves_nothing(store: ArtifactStore) -> None:
    store.check()
    store.capabilities()
    assert list(store.list("probes")) == []


@pytest.mark.parametrize(
    ("store", "missing"),
    [
        ("local", {"checksums"}),
        ("moto", {"checksums"}),
        ("seaweedfs", set()),
        ("limited", {"range", "conditional put", "batch delete", "checksums"}),
    ],
    indirect=["store"],
)
def test_a_store_knows_what_it_can_do(store: ArtifactStore, missing: set[str]) -> None:
    capabilities = store.capabilities()
    assert {name for name, can in capabilities.rows() if not can} == missing
    assert all(name in capabilities.sentence() for name in missing)


def test_a_store_crosses_as_its_uri(store: ArtifactStore) -> None:
    store.put("k", b"x")
    assert open_store(store.uri).get("k") == b"x"


def test_an_unfinished_write_is_never_listed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("j/done", b"x")
    (tmp_path / "j" / ".incoming-half").write_bytes(b"half of it")
    assert [stored.key for stored in store.list("j")] == ["j/done"]


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be made"):
        LocalStore(tmp_path / "file" / "folder")


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(StoreError, match=r"file:///folder or s3://bucket/prefix"):
        open_store("ftp://somewhere/else")


def test_files_can_be_staged_while_the_folder_is_away(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "artifacts")
    (tmp_path / "artifacts").rename(tmp_path / "away")
    (tmp_path / "artifacts").write_text("in the way")
    with store.staging() as folder:
        (folder / "content").write_bytes(b"it waits")
        with pytest.raises(StoreError):
            store.put_file("j/k", folder / "content")
        (tmp_path / "artifacts").unlink()
        (tmp_path / "away").rename(tmp_path / "artifacts")
        store.put_file("j/k", folder / "content")
    assert store.get("j/k") == b"it waits"


ASKING: dict[str, Callable[[ArtifactStore], object]] = {
    "exists": lambda store: store.exists("j/k"),
    "get": lambda store: store.get("j/k"),
    "stream": lambda store: list(store.stream("j/k", 0, 1)),
    "list": lambda store: list(store.list("j")),
    "delete": lambda store: store.delete("j/k"),
}


@pytest.mark.parametrize("ask", ASKING.values(), ids=ASKING)
def test_what_is_in_a_folder_that_is_away_does_not_pass_for_missing(
    ask: Callable[[ArtifactStore], object], tmp_path: Path
) -> None:
    """A checkpoint or an outcome that cannot be seen is not one that was never written."""
    store = LocalStore(tmp_path / "artifacts")
    store.put("j/k", b"x")
    (tmp_path / "artifacts").rename(tmp_path / "away")
    with pytest.raises(StoreError, match="mount it again") as caught:
        ask(store)
    assert not isinstance(caught.value, ArtifactNotFound)
    (tmp_path / "artifacts").mkdir()  # the mount's place
    with pytest.raises(StoreError, match="mount it again"):
        ask(store)
    (tmp_path / "artifacts").rmdir()
    (tmp_path / "away").rename(tmp_path / "artifacts")
    assert store.get("j/k") == b"x"
