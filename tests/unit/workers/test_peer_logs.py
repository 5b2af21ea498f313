"""Worker 0 finds what the others have shipped, and names it once."""

import contextlib
from datetime import UTC, datetime

import pytest

from tests.e2e.processes import wait_until
from workers.artifacts import LocalStore, log_end_key, log_key
from workers.errors import StoreError
from workers.events import LogRecord
from workers.logs import PeerLogs, gathering
from workers.logs.lines import encode_chunk

AT = datetime(2026, 1, 2, tzinfo=UTC)
PREFIX = "jobs/job-1/attempts/1"


def ship(store: LocalStore, rank: int, chunk: int, *lines: str) -> int:
    """A chunk's size."""
    content = encode_chunk(0, [], [line.encode() for line in lines], AT)
    store.put(log_key(PREFIX, rank, chunk), content)
    return len(content)


def test_what_is_shipped_is_named_while_training_goes_on(artifacts: LocalStore) -> None:
    found: list[LogRecord] = []
    with contextlib.closing(PeerLogs(artifacts, PREFIX, 3, found.append)):
        sizes = [ship(artifacts, 1, 0, "one", "two"), ship(artifacts, 2, 0, "three")]
        wait_until(lambda: len(found) == 2, 60, "both chunks")
        ship(artifacts, 1, 1, "four")
        wait_until(lambda: len(found) == 3, 60, "the third chunk")
    told = sorted((each.rank, each.chunk, each.lines, each.size_bytes) for each in found[:2])
    assert told == [(1, 0, 2, sizes[0]), (2, 0, 1, sizes[1])]
    assert (found[2].rank, found[2].chunk, found[2].at) == (1, 1, AT)


def test_chunks_that_made_room_before_they_were_named_are_one_hole(artifacts: LocalStore) -> None:
    for chunk in (0, 3, 4):
        ship(artifacts, 1, chunk, "line")
    artifacts.put(log_end_key(PREFIX, 1), b"{}")
    found: list[LogRecord] = []
    others = PeerLogs(artifacts, PREFIX, 2, found.append)
    others.finish()
    assert [record.chunk for record in found] == [0, 1, 3, 4]
    assert [record.removed for record in found] == [None, (1, 3), None, None]
    assert [record.lines for record in found] == [1, 0, 1, 1]


def test_a_worker_that_never_ends_is_not_waited_for_long(
    artifacts: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "END_PATIENCE_S", 0.1)
    ship(artifacts, 1, 0, "line")
    found: list[LogRecord] = []
    PeerLogs(artifacts, PREFIX, 2, found.append).finish()
    assert [record.chunk for record in found] == [0]


def test_a_store_that_is_away_for_a_while_loses_nothing(
    artifacts: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ship(artifacts, 1, 0, "line")
    asked: list[str] = []
    get = artifacts.get

    def sometimes(key: str) -> bytes:
        asked.append(key)
        if len(asked) < 3:
            raise StoreError("away")
        return get(key)

    monkeypatch.setattr(artifacts, "get", sometimes)
    monkeypatch.setattr(gathering, "SILENT_INTERVAL_S", 0.1)
    found: list[LogRecord] = []
    with contextlib.closing(PeerLogs(artifacts, PREFIX, 2, found.append)):
        wait_until(lambda: found, 60, "the chunk")
    assert [record.chunk for record in found] == [0]
