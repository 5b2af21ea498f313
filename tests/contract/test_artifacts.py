"""What every artifact store must do; one body over all of them."""

import threading
from pathlib import Path

import pytest

from workers.artifacts import ArtifactStore, LocalStore, open_store
from workers.errors import ArtifactExists, ArtifactNotFound, StoreError


@pytest.fixture(params=["local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    return open_store((tmp_path / "a folder").as_uri())


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
    for key in ("j/b", "j/a/2", "j/a/1", "k/1"):
        store.put(key, key.encode())
    assert [stored.key for stored in store.list("j")] == ["j/a/1", "j/a/2", "j/b"]
    assert list(store.list("nothing")) == []


def test_deleting_twice_is_as_deleting_once(store: ArtifactStore) -> None:
    store.put("k", b"x")
    store.delete("k")
    store.delete("k")
    assert not store.exists("k")
    store.put("k", b"y")
    assert store.get("k") == b"y"


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
    assert list(store.list("probes")) == []


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
    with pytest.raises(StoreError, match="file:///folder"):
        open_store("ftp://somewhere/else")
