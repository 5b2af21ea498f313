import itertools
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import workers.run
from tests.factories import tiny_spec
from workers.artifacts import LocalStore, chunk_key, outcome_key
from workers.data import load
from workers.errors import ClaimLost
from workers.events import (
    RECORD,
    Checkpoint,
    CheckpointRecord,
    CheckpointRemovedRecord,
    NoticeRecord,
    ProgressRecord,
    read_outcome,
)
from workers.ledger import Ledger
from workers.publish import KeptCheckpoint, Publisher, surplus
from workers.run import Run, StopFlag, execute
from workers.train import train

PREFIX = "jobs/j/attempts/1"


def notice(text: str) -> NoticeRecord:
    return NoticeRecord(at=datetime.now(UTC), code="test", message=text)


def read_back(store: LocalStore, chunks: int) -> list[str]:
    lines = [
        line for chunk in range(chunks) for line in store.get(chunk_key(PREFIX, chunk)).splitlines()
    ]
    records = [RECORD.validate_json(line) for line in lines]
    return [record.message for record in records if isinstance(record, NoticeRecord)]


def test_records_come_back_in_order_and_once(artifacts: LocalStore) -> None:
    ledger = Ledger(artifacts, PREFIX)
    for number in range(500):
        ledger.append(notice(str(number)))
    chunks = ledger.close()
    assert read_back(artifacts, chunks) == [str(number) for number in range(500)]
    assert not artifacts.exists(chunk_key(PREFIX, chunks))


def test_only_the_last_progress_before_a_flush_is_written(artifacts: LocalStore) -> None:
    ledger = Ledger(artifacts, PREFIX)
    ledger.append(notice("begin"))
    for step in range(1000):
        ledger.progress(ProgressRecord(at=datetime.now(UTC), step=step, epoch=0.0))
    chunks = ledger.close()
    records = b"".join(artifacts.get(chunk_key(PREFIX, chunk)) for chunk in range(chunks))
    steps = [
        record.step
        for record in map(RECORD.validate_json, records.splitlines())
        if isinstance(record, ProgressRecord)
    ]
    assert steps[-1] == 999
    assert len(steps) <= chunks


def test_an_outcome_by_another_hand_ends_the_claim(artifacts: LocalStore) -> None:
    ledger = Ledger(artifacts, PREFIX)
    artifacts.put(outcome_key(PREFIX), b"{}")
    ledger.append(notice("too late"))
    with pytest.raises(ClaimLost):
        ledger.close()
    assert not artifacts.exists(chunk_key(PREFIX, 0))


def test_a_chunk_by_another_writer_ends_the_claim(artifacts: LocalStore) -> None:
    artifacts.put(chunk_key(PREFIX, 0), b"somebody else's\n")
    ledger = Ledger(artifacts, PREFIX)
    ledger.append(notice("mine"))
    with pytest.raises(ClaimLost):
        ledger.close()


def test_an_abandoned_log_writes_nothing_more_and_leaves_no_thread(artifacts: LocalStore) -> None:
    ledger = Ledger(artifacts, PREFIX)
    ledger.abandon()
    assert list(artifacts.list("jobs")) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ledger")]


class Defective(LocalStore):
    """Fails in a way that nobody has thought of."""

    def put(self, key: str, content: bytes) -> None:
        if "/events/" in key:
            raise ZeroDivisionError
        super().put(key, content)


def test_a_defect_in_writing_the_log_is_told_and_holds_up_nobody(
    artifacts: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Defective(artifacts.root)
    ledger = Ledger(store, PREFIX)
    ledger.append(notice("never written"))
    with pytest.raises(ZeroDivisionError):
        ledger.flush()
    assert ledger.close() == 0
    monkeypatch.setattr(workers.run, "open_store", lambda uri: store)
    run = Run(job_id="j", attempt=2, spec=tiny_spec(), artifacts_uri=store.uri, cache_dir=tmp_path)
    outcome = execute(run, StopFlag())
    assert outcome.reason == "internal_error"
    assert "ZeroDivisionError" in outcome.message
    assert read_outcome(store.get(outcome_key(run.prefix))) == outcome


def checkpoint(step: int, *, best: bool = False, named: bool = False) -> KeptCheckpoint:
    return KeptCheckpoint(
        id=f"{step:08d}",
        prefix=f"p/{step}",
        step=step,
        is_best=best,
        is_named=named,
        has_train_state=True,
    )


def thin_a_run(steps: int, keep: int) -> list[int]:
    """Apply the policy after every checkpoint, as a run does."""
    kept: list[KeptCheckpoint] = []
    for step in range(1, steps + 1):
        kept.append(checkpoint(step))
        gone = surplus(kept, keep)
        kept = [one for one in kept if one.id not in gone]
    return [one.step for one in kept]


@given(st.integers(1, 200), st.integers(3, 20))
def test_a_run_keeps_its_first_and_last_and_no_more_than_it_may(steps: int, keep: int) -> None:
    kept = thin_a_run(steps, keep)
    assert len(kept) <= keep
    assert kept[0] == 1
    assert kept[-2:] == [step for step in (steps - 1, steps) if step > 0]


def test_thinning_leaves_no_gap_of_more_than_a_few_strides() -> None:
    kept = thin_a_run(1000, 10)
    gaps = [b - a for a, b in itertools.pairwise(kept)]
    assert max(gaps) <= 4 * 1000 / 9


def test_named_and_best_checkpoints_are_never_thinned() -> None:
    kept = [checkpoint(step, best=step == 3, named=step == 5) for step in range(1, 11)]
    assert surplus(kept, 3) == {f"{step:08d}" for step in (2, 4, 6, 7, 8)}


def test_only_the_latest_best_is_protected() -> None:
    kept = [checkpoint(step, best=step in (2, 3)) for step in range(1, 6)]
    assert surplus(kept, 3) == {"00000002"}


def test_a_report_takes_the_place_of_the_checkpoint_that_a_stop_has_left(
    artifacts: LocalStore, tmp_path: Path
) -> None:
    """A stop while an epoch is evaluated leaves its step without metrics, which come later."""
    spec = tiny_spec(epochs=1)
    data = load(spec.dataset, tmp_path)
    reported = next(event for event in train(spec, data) if isinstance(event, Checkpoint))
    stopped = replace(reported, metrics={}, is_best=False, replaces=False)
    prefixes = ["jobs/j/attempts/1", "jobs/j/attempts/2", "jobs/j/attempts/3"]
    earlier: list[KeptCheckpoint] = []
    for prefix, event in zip(prefixes, (stopped, stopped, reported), strict=True):
        ledger = Ledger(artifacts, prefix)
        with Publisher(artifacts, prefix, spec, data.info, ledger, earlier) as publisher:
            publisher.checkpoint(event)
        ledger.close()
        earlier = earlier or [
            checkpoint(4).model_copy(update={"prefix": f"{prefix}/checkpoints/00000004"})
        ]
    kept = {
        stored.key.split("/")[3] for stored in artifacts.list("jobs") if "checkpoints" in stored.key
    }
    assert kept == {"3"}
    record = RECORD.validate_json(artifacts.get(chunk_key(prefixes[2], 0)).splitlines()[0])
    assert isinstance(record, CheckpointRecord)
    assert record.is_best
    assert record.metrics == reported.metrics


def test_a_checkpoint_is_removed_only_after_its_removal_can_be_read(
    artifacts: LocalStore, tmp_path: Path
) -> None:
    """At every moment, what the written events promise is there: a kill may come at any time."""
    spec = tiny_spec(epochs=30).model_copy(
        update={"checkpoint_every_epochs": 1, "keep_checkpoints": 3}
    )
    run = Run(job_id="j", attempt=1, spec=spec, artifacts_uri=artifacts.uri, cache_dir=tmp_path)
    broken: list[str] = []

    class Watching(LocalStore):
        def delete(self, key: str) -> None:
            super().delete(key)
            promised: set[str] = set()
            for stored in self.list(f"{run.prefix}/events"):
                for line in self.get(stored.key).splitlines():
                    match RECORD.validate_json(line):
                        case CheckpointRecord(prefix=prefix):
                            promised |= {f"{prefix}/train_state.safetensors"}
                        case CheckpointRemovedRecord(id=gone):
                            promised -= {f"{run.prefix}/checkpoints/{gone}/train_state.safetensors"}
            broken.extend(key for key in promised if not self.exists(key))

    store = Watching(artifacts.root)
    ledger = Ledger(store, run.prefix)
    data = load(spec.dataset, tmp_path)
    with Publisher(store, run.prefix, spec, data.info, ledger) as publisher:
        for event in train(spec, data):
            if isinstance(event, Checkpoint):
                publisher.checkpoint(event)
    ledger.close()
    assert broken == []
    states = [s.key for s in store.list(run.prefix) if s.key.endswith("train_state.safetensors")]
    assert len(states) == 2
