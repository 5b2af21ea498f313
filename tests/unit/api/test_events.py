import asyncio
import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from api import broadcast, events
from service.errors import NotReady
from service.jobs import Attempt, Job, JobEvent, JobState, Reason
from tests.unit.api.conftest import Quiet, Running
from tests.unit.api.test_problems import problem
from workers.events import NoticeRecord

SSE = {"Accept": "text/event-stream"}
PATIENCE_S = 30.0


def stream(
    http: httpx2.Client, path: str, headers: dict[str, str] | None = None
) -> list[httpx2.ServerSentEvent]:
    with http.sse(path, headers=headers) as source:
        assert source.response.status_code == 200
        return list(source)


def started(quiet: Quiet) -> str:
    """A job that runs, as far as the store knows."""
    job_id = quiet.submit()
    attempt = Attempt(job_id, 1, "executor", "session", datetime.now(UTC))
    quiet.change(
        job_id, lambda jobs, job: jobs.start_attempt(job, attempt, Reason.TRAINING, "Training.")
    )
    return job_id


def notice(quiet: Quiet, job_id: str, chunk: int, *, urgent: bool) -> None:
    record = NoticeRecord(at=datetime.now(UTC), code="test", message=f"notice {chunk}")
    quiet.jobs.ingest(job_id, 1, chunk, [record])
    quiet.feed.notify(job_id, urgent=urgent)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Reader:
    """Reads a stream in a thread of its own, piece by piece as they are sent."""

    def __init__(self, quiet: Quiet, path: str) -> None:
        self.pieces: list[bytes] = []
        self._http, self._path = quiet.http, path
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        until(lambda: quiet.feed.count() == 1)

    def _read(self) -> None:
        with self._http.stream("GET", self._path, headers=SSE) as answer:
            self.pieces.extend(answer.iter_raw())

    @property
    def text(self) -> str:
        return b"".join(self.pieces).decode()

    def finish(self) -> str:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        return self.text


def test_events_are_numbered_without_gaps_and_read_page_by_page(running: Running) -> None:
    path = f"/v1/jobs/{running.trained}/events"
    events: list[dict[str, Any]] = []
    after = 0
    while True:
        page = running.http.get(path, params={"after": after, "limit": 5}).json()
        events += page["events"]
        if not page["events"]:
            assert page["next_after"] == after
            break
        after = page["next_after"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    kinds = [event["kind"] for event in events]
    assert kinds[0] == "state"
    assert kinds[-1] == "state"
    assert {"started", "first_step", "metrics", "checkpoint", "artifact"} <= set(kinds)
    assert "progress" not in kinds


def test_the_stream_of_a_finished_job_holds_its_events_and_an_end(running: Running) -> None:
    path = f"/v1/jobs/{running.trained}/events"
    listed = running.http.get(path, params={"limit": 1000}).json()["events"]
    streamed = stream(running.http, path)
    kept = [event for event in streamed if event.event not in ("message", "progress", "end")]
    assert [json.loads(event.data) for event in kept] == listed
    assert [event.id for event in kept] == [str(event["seq"]) for event in listed]
    assert [event.event for event in kept] == [event["kind"] for event in listed]
    assert streamed[-1].event == "end"
    end = json.loads(streamed[-1].data)
    assert (end["state"], end["reason"]) == ("succeeded", "completed")
    [progress] = [json.loads(e.data) for e in streamed if e.event == "progress"]
    assert progress["fraction"] == 1.0


def test_a_stream_resumes_behind_the_last_event_that_was_seen(running: Running) -> None:
    path = f"/v1/jobs/{running.trained}/events"
    whole = [event.data for event in stream(running.http, path) if event.event != "message"]
    rest = stream(running.http, path, {"Last-Event-ID": "4"})
    assert [event.data for event in rest if event.event != "message"] == whole[4:]
    # The header is a browser's, on its own; it knows better than the address it was given.
    both = stream(running.http, f"{path}?after=1", {"Last-Event-ID": "4"})
    assert [event.data for event in both] == [event.data for event in rest]


def test_a_client_that_knows_more_than_there_is_gets_a_gap_and_everything(
    running: Running,
) -> None:
    path = f"/v1/jobs/{running.trained}/events"
    found = stream(running.http, path, {"Last-Event-ID": "100000"})
    kinds = [event.event for event in found if event.event != "message"]
    assert kinds[0] == "gap"
    assert json.loads(found[kinds.index("gap") + 1].data) == {
        "after": 100_000,
        "resumed_after": 0,
    }
    assert kinds[1:] == [
        event.event for event in stream(running.http, path) if event.event != "message"
    ]


def test_a_stream_that_is_bounded_stops_without_an_end(quiet: Quiet) -> None:
    job = quiet.submit()
    found = stream(quiet.http, f"/v1/jobs/{job}/events?timeout_s=0.2")
    assert [event.event for event in found if event.event != "message"] == ["state"]
    assert quiet.feed.count() == 0


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams send what is urgent, and nothing else before a test is over."""
    monkeypatch.setattr("api.events.KEEP_ALIVE_S", 3600.0)
    monkeypatch.setattr("api.events.FLUSH_S", 3600.0)


@pytest.mark.usefixtures("unhurried")
def test_a_change_of_state_is_told_at_once(quiet: Quiet) -> None:
    job_id = started(quiet)
    reader = Reader(quiet, f"/v1/jobs/{job_id}/events")
    until(lambda: "Training." in reader.text)
    quiet.change(
        job_id, lambda jobs, job: jobs.settle(job, JobState.FAILED, Reason.DIVERGED, "NaN.")
    )
    text = reader.finish()
    assert 'event: end\ndata: {"state":"failed","reason":"diverged","message":"NaN."}' in text


@pytest.mark.usefixtures("unhurried")
def test_ordinary_news_are_flushed_together(quiet: Quiet) -> None:
    job_id = started(quiet)
    reader = Reader(quiet, f"/v1/jobs/{job_id}/events")
    until(lambda: "Training." in reader.text)
    quiet.feed.notify(job_id, urgent=True)
    until(lambda: ": alive" in reader.text)  # it has looked, and looks again when it is woken
    for chunk in range(10):
        notice(quiet, job_id, chunk, urgent=False)
    quiet.change(job_id, lambda jobs, job: jobs.settle(job, JobState.FAILED, Reason.INVALID, "."))
    text = reader.finish()
    assert len([piece for piece in reader.pieces if b"event: notice" in piece]) == 1
    assert [text.count(f"notice {chunk}") for chunk in range(10)] == [1] * 10


def test_ordinary_news_come_without_anything_urgent(
    quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.events.KEEP_ALIVE_S", 3600.0)
    job_id = started(quiet)
    reader = Reader(quiet, f"/v1/jobs/{job_id}/events")
    until(lambda: "Training." in reader.text)
    notice(quiet, job_id, 0, urgent=False)
    until(lambda: "notice 0" in reader.text)
    quiet.change(job_id, lambda jobs, job: jobs.settle(job, JobState.FAILED, Reason.INVALID, "."))
    assert "event: end" in reader.finish()


def test_a_silent_stream_shows_signs_of_life(quiet: Quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.events.KEEP_ALIVE_S", 0.05)
    job = quiet.submit()
    with quiet.http.stream("GET", f"/v1/jobs/{job}/events?timeout_s=1", headers=SSE) as answer:
        text = answer.read().decode()
    assert text.count(": alive\n") >= 3
    assert "event: end" not in text


def test_events_exist_as_json_and_as_a_stream_and_as_nothing_else(running: Running) -> None:
    path = f"/v1/jobs/{running.trained}/events"
    answer = running.http.get(path, headers={"Accept": "text/csv"})
    assert "text/event-stream" in problem(answer, 406, "not-acceptable")["detail"]
    assert running.http.get(path).headers["vary"] == "Accept"
    streamed = running.http.get(path, headers=SSE)
    assert streamed.headers["vary"] == "Accept"
    assert streamed.headers["cache-control"] == "no-store"


def read_stream(quiet: Quiet, job_id: str, timeout_s: float) -> list[bytes]:
    """The pieces of a stream, without the server around it."""

    async def read() -> list[bytes]:
        following = events._Stream(quiet.app.state.services, job_id, 0)
        return [piece async for piece in following.run(timeout_s)]

    return asyncio.run(read())


@pytest.mark.parametrize("after", [0, 1])
def test_a_database_that_does_not_answer_breaks_a_stream_off_and_is_no_defect(
    quiet: Quiet, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    job_id = started(quiet)
    results, asked = quiet.app.state.services.results, []
    tail = results.tail

    def hiccup(job_id: str, after_event: int, limit: int) -> tuple[Job, list[JobEvent]]:
        asked.append(job_id)
        if len(asked) > after:
            raise NotReady("the database is locked")
        found: tuple[Job, list[JobEvent]] = tail(job_id, after_event, limit)
        return found

    monkeypatch.setattr(results, "tail", hiccup)
    pieces = b"".join(read_stream(quiet, job_id, 0.05))
    assert b"event: end" not in pieces
    assert (b"event: state" in pieces) is (after == 1)


def test_a_backlog_is_sent_no_longer_than_the_stream_may_last(
    quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broadcast, "BATCH", 2)
    job_id = started(quiet)
    for chunk in range(10):
        notice(quiet, job_id, chunk, urgent=False)
    quiet.change(
        job_id,
        lambda jobs, job: jobs.settle(job, JobState.SUCCEEDED, Reason.COMPLETED, "Done."),
    )
    pieces = b"".join(read_stream(quiet, job_id, 1e-9))
    assert pieces.count(b"id: ") == 2  # it gets on
    assert b"event: end" not in pieces
    assert b"event: end" in b"".join(read_stream(quiet, job_id, 60))
