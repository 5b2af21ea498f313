"""A run outlasts a store that is away for a while, whatever it wants of it then."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.factories import tiny_spec
from workers import ledger, run
from workers.artifacts import LocalStore
from workers.errors import ArtifactNotFound, StoreAway, StoreError
from workers.ledger import patiently
from workers.run import Run, StopFlag, execute

KEEP_FEW = {"checkpoint_every_epochs": 1, "keep_checkpoints": 3}


class Hiccuping(LocalStore):
    """Is away at the first try of everything that is asked of it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.tried: set[tuple[str, str]] = set()

    def _try(self, what: str, key: str) -> None:
        if (what, key) not in self.tried:
            self.tried.add((what, key))
            raise StoreAway

    def put(self, key: str, content: bytes) -> None:
        self._try("put", key)
        super().put(key, content)

    def put_file(self, key: str, path: Path) -> None:
        self._try("put", key)
        super().put_file(key, path)

    def size(self, key: str) -> int:
        self._try("size", key)
        return super().size(key)

    def stream(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        self._try("stream", key)
        return super().stream(key, start, stop)

    def delete_many(self, keys: Iterable[str]) -> None:
        doomed = list(keys)
        for key in doomed:
            self._try("delete", key)
        super().delete_many(doomed)


def test_no_request_of_a_run_that_fails_once_costs_the_attempt(
    artifacts: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "FLUSH_INTERVAL_S", 0.01)
    store = Hiccuping(artifacts.root)
    monkeypatch.setattr(run, "open_store", lambda uri: store)
    spec = tiny_spec(epochs=6).model_copy(update=KEEP_FEW)
    first = Run(job_id="j", attempt=1, spec=spec, artifacts_uri=store.uri, cache_dir=tmp_path)
    assert execute(first, StopFlag()).reason == "completed"
    longer = tiny_spec(epochs=9).model_copy(update=KEEP_FEW)
    prefix = f"{first.prefix}/checkpoints/00000024"
    second = first.model_copy(update={"attempt": 2, "spec": longer, "resume_from": prefix})
    outcome = execute(second, StopFlag())
    assert (outcome.reason, outcome.step) == ("completed", 36)
    asked = {(what, key.rsplit("/", 1)[1]) for what, key in store.tried}
    assert {
        ("size", "outcome.json"),
        ("put", "outcome.json"),
        ("put", "weights.safetensors"),
        ("delete", "train_state.safetensors"),
        ("stream", "manifest.json"),
    } <= asked


class Denying(LocalStore):
    """Has nothing for this node."""

    outcomes = 0

    def size(self, key: str) -> int:
        raise StoreError("denied")

    def put(self, key: str, content: bytes) -> None:
        self.outcomes += key.endswith("outcome.json")
        raise StoreError("denied")


def test_a_store_that_a_node_may_not_use_is_not_waited_for(
    artifacts: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "FLUSH_INTERVAL_S", 0.01)
    monkeypatch.setattr(ledger, "STORE_PATIENCE_S", 0.5)
    monkeypatch.setattr("workers.logs.attempt.CLOSE_PATIENCE_S", 0.2)
    store = Denying(artifacts.root)
    monkeypatch.setattr(run, "open_store", lambda uri: store)
    asked = Run(
        job_id="j", attempt=1, spec=tiny_spec(), artifacts_uri=artifacts.uri, cache_dir=tmp_path
    )
    with pytest.raises(StoreError, match="denied"):
        execute(asked, StopFlag())
    assert store.outcomes == 1


def test_an_answer_is_not_asked_for_again(artifacts: LocalStore) -> None:
    asked = []

    def look() -> bytes:
        asked.append(1)
        return artifacts.get("k")

    with pytest.raises(ArtifactNotFound):
        patiently(look)
    assert len(asked) == 1
