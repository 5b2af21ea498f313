import json
from datetime import UTC, datetime

import pytest

from api.bodies import LogLineBody
from api.client import Client
from api.terminal import print_log_line
from service.jobs import JobState, Reason
from tests.unit.api.conftest import Quiet, Running
from tests.unit.api.test_events import started, stream
from tests.unit.api.test_problems import problem
from workers.artifacts import attempt_prefix, log_key
from workers.events import LogRecord
from workers.logs.lines import encode_chunk
from workers.logs.shipping import CHUNK_LINES

AT = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)


def say(quiet: Quiet, job_id: str, chunk: int, *lines: str, rank: int = 0) -> None:
    content = encode_chunk(0, [], [line.encode() for line in lines], AT)
    quiet.artifacts.put(log_key(attempt_prefix(job_id, 1), rank, chunk), content)
    record = LogRecord(at=AT, rank=rank, chunk=chunk, lines=len(lines), size_bytes=len(content))
    quiet.jobs.ingest(job_id, 1, quiet.jobs.attempts(job_id)[-1].next_chunk, [record])
    quiet.feed.notify(job_id, urgent=False)


def fail(quiet: Quiet, job_id: str) -> None:
    quiet.change(job_id, lambda jobs, job: jobs.settle(job, JobState.FAILED, Reason.DIVERGED, "."))


def test_a_log_exists_as_text_as_json_and_line_by_line(quiet: Quiet) -> None:
    job_id = started(quiet)
    say(quiet, job_id, 0, "one", "two")
    path = f"/v1/jobs/{job_id}/logs"
    text = quiet.http.get(path)
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert text.text == (
        "2026-01-02T03:04:05.678Z output   one\n2026-01-02T03:04:05.678Z output   two\n"
    )
    page = quiet.http.get(path, headers={"Accept": "application/json"}).json()
    assert [line["text"] for line in page["lines"]] == ["one", "two"]
    assert (page["lines"][0]["attempt"], page["lines"][0]["rank"]) == (1, 0)
    assert page["next_after"] == text.headers["next-after"]
    assert (page["has_more"], page["is_ended"]) == (False, False)
    rows = quiet.http.get(path, headers={"Accept": "application/x-ndjson"}).text.splitlines()
    assert [json.loads(row) for row in rows] == page["lines"]
    assert quiet.http.get(path, params={"format": "json"}).json() == page
    problem(quiet.http.get(path, headers={"Accept": "image/png"}), 406, "not-acceptable")
    fail(quiet, job_id)
    assert quiet.http.get(path, params={"format": "json"}).json()["is_ended"]


def test_a_log_is_read_page_by_page_or_from_its_end(quiet: Quiet) -> None:
    job_id = started(quiet)
    for chunk in range(3):
        say(quiet, job_id, chunk, f"{chunk}.0", f"{chunk}.1")
    path = f"/v1/jobs/{job_id}/logs"
    found: list[str] = []
    after = "0"
    for _ in range(6):
        answer = quiet.http.get(path, params={"after": after, "limit": 1})
        found.append(answer.text.split()[-1])
        after = answer.headers["next-after"]
    assert found == ["0.0", "0.1", "1.0", "1.1", "2.0", "2.1"]
    assert quiet.http.get(path, params={"after": after}).text == ""
    tail = quiet.http.get(path, params={"tail": 3})
    assert [line.split()[-1] for line in tail.text.splitlines()] == ["1.1", "2.0", "2.1"]
    assert tail.headers["next-after"] == after
    assert quiet.http.get(path, params={"attempt": 2}).text == ""


def test_lines_of_several_workers_say_whose_they_are(
    quiet: Quiet, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = started(quiet)
    say(quiet, job_id, 0, "one")
    say(quiet, job_id, 0, "two", rank=1)
    say(quiet, job_id, 1, "three")
    path = f"/v1/jobs/{job_id}/logs"
    text = quiet.http.get(path)
    assert [line.split(None, 2)[2] for line in text.text.splitlines()] == [
        *("one", "[worker 1] two", "three")
    ]
    alone = quiet.http.get(path, params={"rank": 1, "format": "json"})
    assert [(line["rank"], line["text"]) for line in alone.json()["lines"]] == [(1, "two")]
    assert alone.headers["etag"] != text.headers["etag"]
    assert quiet.http.get(path, params={"rank": 1, "tail": 5}).text.endswith("] two\n")
    assert quiet.http.get(path, params={"rank": 5}).text == ""
    page = quiet.http.get(path, params={"format": "json"}).json()
    for line in page["lines"]:
        print_log_line(LogLineBody.model_validate(line))
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(None, 3)[3] for line in printed] == ["one", "[worker 1] two", "three"]


def test_an_unchanged_log_is_not_sent_again(quiet: Quiet) -> None:
    job_id = started(quiet)
    say(quiet, job_id, 0, "one")
    path = f"/v1/jobs/{job_id}/logs"
    tag = quiet.http.get(path).headers["etag"]
    again = quiet.http.get(path, headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    other = quiet.http.get(path, params={"tail": 5}, headers={"If-None-Match": tag})
    assert other.status_code == 200
    say(quiet, job_id, 1, "two")
    assert quiet.http.get(path, headers={"If-None-Match": tag}).status_code == 200


@pytest.mark.parametrize(
    ("params", "pointer"),
    [
        ({"after": "x"}, "/query/after"),
        ({"tail": -1}, "/query/tail"),
        ({"tail": 1, "after": "1"}, "/query/tail"),
        ({"limit": 10_001}, "/query/limit"),
        ({"attempt": 0}, "/query/attempt"),
        ({"rank": -1}, "/query/rank"),
        ({"rank": 64}, "/query/rank"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(
    quiet: Quiet, params: dict[str, str | int], pointer: str
) -> None:
    path = f"/v1/jobs/{quiet.submit()}/logs"
    found = problem(quiet.http.get(path, params=params), 422, "invalid-query")
    assert [field["pointer"] for field in found["errors"]] == [pointer]


def test_the_log_of_no_job_is_not_found(quiet: Quiet) -> None:
    problem(quiet.http.get("/v1/jobs/job-x/logs"), 404, "job-not-found")


def test_events_hold_lines_only_where_they_are_asked_for(quiet: Quiet) -> None:
    job_id = started(quiet)
    say(quiet, job_id, 0, "one", "two")
    fail(quiet, job_id)
    path = f"/v1/jobs/{job_id}/events"
    plain = quiet.http.get(path).json()["events"]
    assert [event["kind"] for event in plain] == ["state", "state", "log", "state"]
    assert "entries" not in plain[2]["data"]
    assert plain[2]["data"]["lines"] == 2
    chosen = quiet.http.get(path, params={"kind": "log"}).json()
    assert [entry["text"] for entry in chosen["events"][0]["data"]["entries"]] == ["one", "two"]
    assert (len(chosen["events"]), chosen["next_after"]) == (1, 3)
    streamed = [event for event in stream(quiet.http, path) if event.event == "log"]
    assert "entries" not in json.loads(streamed[0].data)["data"]
    problem(quiet.http.get(path, params={"kind": "nonsense"}), 422, "invalid-query")


def test_a_stream_of_chosen_kinds_has_their_numbers_their_lines_and_an_end(quiet: Quiet) -> None:
    job_id = started(quiet)
    for chunk in range(3):
        say(quiet, job_id, chunk, f"line {chunk}")
    quiet.artifacts.delete(log_key(attempt_prefix(job_id, 1), 0, 1))
    fail(quiet, job_id)
    path = f"/v1/jobs/{job_id}/events?kind=log"
    found = [event for event in stream(quiet.http, path) if event.event != "message"]
    assert [(event.event, event.id) for event in found] == [
        ("log", "3"),
        ("log", "4"),
        ("log", "5"),
        ("end", found[-1].id),
    ]
    entries = [json.loads(event.data)["data"]["entries"] for event in found[:-1]]
    assert [[entry["level"] for entry in some] for some in entries] == [
        ["output"],
        ["gap"],
        ["output"],
    ]
    assert entries[1][0]["lines"] == 1
    rest = stream(quiet.http, path, {"Last-Event-ID": "4"})
    assert [event.id for event in rest if event.event == "log"] == ["5"]
    both = stream(quiet.http, f"{path}&kind=state")
    assert [event.event for event in both if event.event != "message"] == [
        *("state", "state", "log", "log", "log", "state", "end")
    ]


def test_the_client_reads_a_log_whole_its_end_and_as_it_grows(running: Running, url: str) -> None:
    with Client(url) as client:
        job = client.job(running.trained)
        whole = list(job.logs())
        assert whole[0].text.startswith(f"{job.id} attempt 1 on ")
        assert whole[-1].text.startswith("ended: completed")
        assert list(job.logs(follow=True)) == whole
        assert list(job.logs(tail=2)) == whole[-2:]
        assert list(job.logs(attempt=2)) == []
        assert list(job.logs(rank=0, follow=True)) == whole
        assert list(job.logs(rank=1)) == []
        spec = job.body.spec
        again = client.submit(spec, name="followed")
        followed = [line.text for line in again.logs(follow=True)]
        assert followed == [line.text for line in again.logs()]
        assert followed[-1].startswith("ended: completed")


def test_a_chunk_of_many_short_lines_is_followed(quiet: Quiet, quiet_url: str) -> None:
    job_id = started(quiet)
    lines = ["."] * CHUNK_LINES
    with Client(quiet_url) as client:
        followed = client.job(job_id).logs(follow=True)
        say(quiet, job_id, 0, "first")
        assert next(followed).text == "first"
        say(quiet, job_id, 1, *lines)
        fail(quiet, job_id)
        assert [line.text for line in followed] == lines
