from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.errors import InvalidQuery, JobNotFound, NotReady
from service.jobs import Attempt, JobState, Reason
from service.logs import Cursor, Logs, SaidLine, rescue_log
from tests.factories import request
from tests.harness import Service
from workers.artifacts import attempt_prefix, chunk_key, log_key
from workers.errors import StoreError
from workers.events import RECORD, LogRecord, Outcome
from workers.logs.lines import encode_chunk
from workers.logs.local import LocalLog, local_log_path

AT = datetime(2026, 1, 2, tzinfo=UTC)
Say = Callable[..., str]


@pytest.fixture
def logs(service: Service) -> Logs:
    return Logs(service.jobs, service.artifacts)


def start(service: Service) -> str:
    """A job with an attempt that runs, as far as the store knows."""
    job = service.submit(request())
    attempt = Attempt(job.id, job.attempt + 1, "executor", "session", AT)
    service.jobs.start_attempt(job, attempt, Reason.TRAINING, "Training.")
    return job.id


def say(
    service: Service,
    job_id: str,
    chunk: int,
    *lines: str,
    removed: tuple[int, int] | None = None,
) -> None:
    """One chunk of a log, and its event."""
    content = encode_chunk(0, [], [line.encode() for line in lines], AT)
    service.artifacts.put(log_key(attempt_prefix(job_id, 1), 0, chunk), content)
    record = LogRecord(
        at=AT, chunk=chunk, lines=len(lines), size_bytes=len(content), removed=removed
    )
    service.jobs.ingest(job_id, 1, chunk, [record])


def texts(lines: tuple[SaidLine, ...]) -> list[str]:
    return [said.line.text for said in lines]


def test_every_page_goes_on_where_the_one_before_ended(service: Service, logs: Logs) -> None:
    job_id = start(service)
    for chunk in range(4):
        say(service, job_id, chunk, *(f"{chunk}.{n}" for n in range(5)))
    whole = [f"{chunk}.{n}" for chunk in range(4) for n in range(5)]
    for limit in (1, 2, 5, 7, 20, 100):
        found: list[str] = []
        page = logs.read(job_id, None, Cursor(), limit)
        while True:
            assert len(page.lines) <= limit
            found += texts(page.lines)
            if not page.has_more:
                break
            page = logs.read(job_id, None, Cursor.parse(str(page.cursor)), limit)
        assert found == whole
        assert not page.is_ended
        later = logs.read(job_id, None, page.cursor, limit)
        assert (later.lines, later.cursor) == ((), page.cursor)
    say(service, job_id, 4, "news")
    assert texts(logs.read(job_id, None, page.cursor, 10).lines) == ["news"]


def test_the_last_lines_are_the_last_lines(service: Service, logs: Logs) -> None:
    job_id = start(service)
    for chunk in range(4):
        say(service, job_id, chunk, *(f"{chunk}.{n}" for n in range(5)))
    whole = [f"{chunk}.{n}" for chunk in range(4) for n in range(5)]
    end = logs.read(job_id, None, Cursor(), 100).cursor
    for count in (0, 1, 5, 6, 20, 50):
        page = logs.tail(job_id, None, count)
        assert texts(page.lines) == (whole[-count:] if count else [])
        assert page.cursor == end
    assert texts(logs.tail(job_id, 1, 1).lines) == ["3.4"]
    assert texts(logs.tail(job_id, 2, 1).lines) == []


def test_chunks_that_were_removed_are_one_gap_with_their_sum(service: Service, logs: Logs) -> None:
    job_id = start(service)
    for chunk in range(5):
        say(service, job_id, chunk, "a", "b", removed=(1, 4) if chunk == 4 else None)
    rows = service.jobs.events(job_id, kinds=("log",))
    page = logs.read(job_id, None, Cursor(), 100)
    assert [said.line.level for said in page.lines] == ["output"] * 2 + ["gap"] + ["output"] * 2
    hole = page.lines[2].line
    assert hole.lines == 6
    assert hole.size_bytes == sum(int(row.data["size_bytes"]) for row in rows[1:4])


def test_a_chunk_that_is_missing_or_unreadable_is_a_gap(service: Service, logs: Logs) -> None:
    job_id = start(service)
    for chunk in range(3):
        say(service, job_id, chunk, f"line {chunk}")
    prefix = attempt_prefix(job_id, 1)
    service.artifacts.delete(log_key(prefix, 0, 0))
    service.artifacts.delete(log_key(prefix, 0, 1))
    service.artifacts.put(log_key(prefix, 0, 1), b"{}\nnonsense\n")
    page = logs.read(job_id, None, Cursor(), 100)
    assert [said.line.level for said in page.lines] == ["gap", "gap", "output"]
    assert texts(page.lines)[1] == "1 line(s), " + page.lines[1].line.text.split(", ", 1)[1]
    [first, *_] = service.jobs.events(job_id, kinds=("log",))
    assert logs.lines_of(job_id, first)[0].level == "gap"


def test_a_store_that_is_away_is_no_gap(
    service: Service, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = start(service)
    say(service, job_id, 0, "line")

    def away(key: str) -> bytes:
        raise StoreError("away")

    monkeypatch.setattr(service.artifacts, "get", away)
    with pytest.raises(NotReady):
        logs.read(job_id, None, Cursor(), 100)


@pytest.mark.parametrize("text", ["", "x", "-1", "1-", "1-2-3", "²", "1" * 17])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidQuery):
        Cursor.parse(text)


def test_the_log_of_no_job_is_not_found(logs: Logs) -> None:
    with pytest.raises(JobNotFound):
        logs.read("job-x", None, Cursor(), 1)
    with pytest.raises(JobNotFound):
        logs.tail("job-x", None, 1)
    with pytest.raises(JobNotFound):
        logs.version("job-x")


def test_the_log_of_a_job_that_ran_is_whole_and_ended(service: Service, logs: Logs) -> None:
    job = service.run_to_end(service.submit(request()))
    assert job.state is JobState.SUCCEEDED
    page = logs.read(job.id, None, Cursor(), 1000)
    assert texts(page.lines)[0].startswith(f"{job.id} attempt 1 on ")
    assert texts(page.lines)[-1].startswith("ended: completed")
    assert page.is_ended


def test_what_a_lost_attempt_left_is_announced_once_in_its_own_event_log(
    service: Service, tmp_path: Path
) -> None:
    job_id = start(service)
    say(service, job_id, 0, "announced")
    path = local_log_path(tmp_path, job_id, 1)
    file = LocalLog.create(path)
    file.append(b"left")
    file.close()
    lost = Outcome(reason="worker_lost", message="gone", at=AT)
    prefix = attempt_prefix(job_id, 1)
    # Its process wrote one more chunk of events before it died.
    service.artifacts.put(chunk_key(prefix, 1), b"")
    attempt = service.jobs.attempts(job_id)[-1]
    for _ in range(2):
        rescue_log(service.jobs, service.artifacts, tmp_path, attempt, lost)
    assert not path.exists()
    [record] = [
        RECORD.validate_json(line)
        for line in service.artifacts.get(chunk_key(prefix, 2)).splitlines()
    ]
    assert isinstance(record, LogRecord)
    assert (record.chunk, record.lines) == (1, 1)
    assert not service.artifacts.exists(chunk_key(prefix, 3))
