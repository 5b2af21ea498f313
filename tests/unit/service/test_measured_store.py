from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service.measured_store import MeasuredStore
from service.measures import StorageMeasures
from workers.artifacts import LocalStore
from workers.errors import ArtifactExists, ArtifactNotFound, StoreAway, StoreError


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def measured(tmp_path: Path, registry: CollectorRegistry) -> MeasuredStore:
    return MeasuredStore(LocalStore(tmp_path / "artifacts"), StorageMeasures(registry))


def calls(registry: CollectorRegistry, operation: str) -> float:
    name = "spreadtrain_storage_operation_seconds_count"
    return registry.get_sample_value(name, {"operation": operation}) or 0


def errors(registry: CollectorRegistry, operation: str, error: str) -> float:
    labels = {"operation": operation, "error": error}
    return registry.get_sample_value("spreadtrain_storage_errors_total", labels) or 0


def test_it_does_what_the_store_does_and_counts_it(
    measured: MeasuredStore, registry: CollectorRegistry, tmp_path: Path
) -> None:
    measured.check()
    measured.put("a/b", b"content")
    (tmp_path / "file").write_bytes(b"file")
    measured.put_file("a/c", tmp_path / "file")
    assert measured.get("a/b") == b"content"
    assert b"".join(measured.stream("a/b", 1, 3)) == b"on"
    assert [stored.key for stored in measured.list("a")] == ["a/b", "a/c"]
    with measured.open_file("a/c") as path:
        assert path.read_bytes() == b"file"
    with measured.staging() as folder:
        assert folder.is_dir()
    assert measured.size("a/b") == 7
    assert measured.capabilities().list
    assert measured.free_bytes()
    assert measured.presigned_url("a/b", 60) is None
    assert list(measured.unfinished()) == []
    measured.delete("a/b")
    measured.delete_many(["a/c"])
    measured.prune("a")
    assert not measured.exists("a/c")
    for operation in ("check", "put", "put_file", "open_file", "delete", "delete_many", "prune"):
        assert calls(registry, operation) == 1
    assert calls(registry, "stream") == 2
    assert calls(registry, "size") == 2


def test_an_answer_is_no_failure(measured: MeasuredStore, registry: CollectorRegistry) -> None:
    measured.put("a", b"1")
    with pytest.raises(ArtifactExists):
        measured.put("a", b"2")
    with pytest.raises(ArtifactNotFound):
        measured.get("b")
    with pytest.raises(ArtifactNotFound), measured.open_file("b"):
        pass
    assert calls(registry, "put") == 2
    assert sum(errors(registry, "put", kind) for kind in ("away", "full", "other")) == 0


def test_failures_are_counted_by_what_they_are(
    measured: MeasuredStore, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StoreAway

    def other(*_: object) -> None:
        raise StoreError

    monkeypatch.setattr(LocalStore, "size", away)
    monkeypatch.setattr(LocalStore, "delete", other)
    with pytest.raises(StoreAway):
        measured.size("a")
    with pytest.raises(StoreError):
        measured.delete("a")
    assert errors(registry, "size", "away") == 1
    assert errors(registry, "delete", "other") == 1


def test_the_readers_failure_inside_the_block_of_a_file_is_not_the_stores(
    measured: MeasuredStore, registry: CollectorRegistry
) -> None:
    measured.put("a", b"1")
    with pytest.raises(StoreAway), measured.open_file("a"):
        raise StoreAway
    assert errors(registry, "open_file", "away") == 0
