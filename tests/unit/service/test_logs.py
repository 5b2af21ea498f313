from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.cluster.inline import InlineCluster
from service.errors import InvalidQuery, JobNotFound, NotReady
from service.jobs import Attempt, JobState, Reason
from service.jobstore import JobStore
from service.logs import Cursor, Logs, SaidLine, rescue_log
from tests.factories import request, tiny_spec
from tests.harness import Service, make_service
from workers.artifacts import (
    LocalStore,
    attempt_prefix,
    chunk_key,
    log_end_key,
    log_key,
)
from workers.errors import StoreError
from workers.events import RECORD, LogRecord, Outcome
from workers.logs.lines import encode_chunk
from workers.logs.local import LocalLog, local_log_path
from workers.spec import Resources

AT = datetime(2026, 1, 2, tzinfo=UTC)
Say = Callable[..., str]


@pytest.fixture
def logs(service: Service) -> Logs:
    return Logs(service.jobs, service.artifacts)


def start(service: Service, workers: int = 1) -> str:
    """A job with an attempt that runs, as far as the store knows."""
    spec = tiny_spec().model_copy(update={"resources": Resources(workers=workers)})
    job = service.submit(request(spec))
    attempt = Attempt(job.id, job.attempt + 1, "executor", "session", AT)
    service.jobs.start_attempt(job, attempt, Reason.TRAINING, "Training.")
    return job.id


def say(
    service: Service,
    job_id: str,
    chunk: int,
    *lines: str,
    removed: tuple[int, int] | None = None,
    rank: int = 0,
) -> None:
    """One chunk of a log, and its event."""
    content = encode_chunk(0, [], [line.encode() for line in lines], AT)
    service.artifacts.put(log_key(attempt_prefix(job_id, 1), rank, chunk), content)
    record = LogRecord(
        at=AT, rank=rank, chunk=chunk, lines=len(lines), size_bytes=len(content), removed=removed
    )
    next_chunk = service.jobs.attempts(job_id)[-1].next_chunk
    service.jobs.ingest(job_id, 1, next_chunk, [record])


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
    job, attempt = service.jobs.get(job_id), service.jobs.attempts(job_id)[-1]
    for _ in range(2):
        rescue_log(service.jobs, service.artifacts, tmp_path, job, attempt, lost)
    assert not path.exists()
    [record] = [
        RECORD.validate_json(line)
        for line in service.artifacts.get(chunk_key(prefix, 2)).splitlines()
    ]
    assert isinstance(record, LogRecord)
    assert (record.chunk, record.lines) == (1, 1)
    assert not service.artifacts.exists(chunk_key(prefix, 3))


@pytest.fixture
def gangs(jobs: JobStore, artifacts: LocalStore, tmp_path: Path) -> Service:
    """A service with room for two workers."""
    return make_service(jobs, artifacts, tmp_path, InlineCluster(cpus=2))


def test_the_log_of_one_worker_is_read_alone_and_in_pages(gangs: Service) -> None:
    logs = Logs(gangs.jobs, gangs.artifacts)
    job_id = start(gangs, workers=2)
    for chunk in range(3):
        for rank in (0, 1):
            say(gangs, job_id, chunk, *(f"{rank}.{chunk}.{n}" for n in range(2)), rank=rank)
    both = logs.read(job_id, None, Cursor(), 100)
    assert [(said.rank, said.line.text) for said in both.lines[:4]] == [
        *((0, "0.0.0"), (0, "0.0.1"), (1, "1.0.0"), (1, "1.0.1"))
    ]
    whole = [f"1.{chunk}.{n}" for chunk in range(3) for n in range(2)]
    found: list[str] = []
    cursor, has_more = Cursor(), True
    while has_more:
        page = logs.read(job_id, None, cursor, 1, rank=1)
        assert {said.rank for said in page.lines} <= {1}
        found += texts(page.lines)
        cursor, has_more = page.cursor, page.has_more
    assert found == whole
    for count in (1, 3, 10):
        assert texts(logs.tail(job_id, None, count, rank=1).lines) == whole[-count:]
    assert logs.read(job_id, None, Cursor(), 100, rank=2).lines == ()


def test_what_each_worker_of_a_lost_gang_left_is_announced_once(
    gangs: Service, tmp_path: Path
) -> None:
    job_id = start(gangs, workers=2)
    prefix = attempt_prefix(job_id, 1)
    say(gangs, job_id, 0, "first", rank=1)
    for chunk in range(3):
        say(gangs, job_id, chunk, f"of worker 0, {chunk}")
    shipped = encode_chunk(7, [], [b"second"], AT)  # which worker 0 had not found yet
    gangs.artifacts.put(log_key(prefix, 1, 1), shipped)
    file = LocalLog.create(local_log_path(tmp_path, job_id, 1, 1))
    file.append(b"second\nlast words\n")
    file.close()
    lost = Outcome(reason="worker_lost", message="gone", at=AT)
    for _ in range(2):
        job = gangs.jobs.get(job_id)
        gangs.attempts._reports.take_in_rest(job, gangs.jobs.attempts(job_id)[-1], lost)
    page = Logs(gangs.jobs, gangs.artifacts).read(job_id, None, Cursor(), 100, rank=1)
    assert texts(page.lines) == ["first", "second", "last words"]
    assert not local_log_path(tmp_path, job_id, 1, 1).exists()


def test_a_worker_that_was_lost_on_another_machine_leaves_a_gap_and_one_that_ended_none(
    gangs: Service,
) -> None:
    lost = Outcome(reason="completed", message="done", at=AT, chunks=1)
    levels = []
    for has_ended in (False, True):
        job_id = start(gangs, workers=2)
        say(gangs, job_id, 0, "first", rank=1)
        if has_ended:
            gangs.artifacts.put(log_end_key(attempt_prefix(job_id, 1), 1), b"{}")
        job = gangs.jobs.get(job_id)
        for _ in range(2):
            gangs.attempts._reports.take_in_rest(job, gangs.jobs.attempts(job_id)[-1], lost)
        page = Logs(gangs.jobs, gangs.artifacts).read(job_id, None, Cursor(), 100)
        levels.append([said.line.level for said in page.lines])
    assert levels == [["output", "gap"], ["output"]]
