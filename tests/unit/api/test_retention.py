import itertools
import json
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from api.client import ApiError, Client
from service.jobs import JobState, Reason
from service.results import Results
from tests.factories import request
from tests.unit.api.conftest import DIGITS, Quiet, Running
from tests.unit.api.test_events import SSE, Reader, started, stream
from tests.unit.api.test_jobs import cancelled
from tests.unit.api.test_problems import problem

BODY = request(name="first light", labels={"team": "a"}).model_dump(mode="json")


def ended(quiet: Quiet, **fields: object) -> str:
    job_id = quiet.submit(**fields)
    cancelled(quiet, job_id)
    return job_id


def test_a_deleted_job_is_not_found_any_more(quiet: Quiet) -> None:
    job_id, path = (made := ended(quiet)), f"/v1/jobs/{made}"
    answer = quiet.http.delete(path)
    assert (answer.status_code, answer.content) == (204, b"")
    for below in ("", "/spec", "/events", "/metrics", "/checkpoints", "/artifacts", "/samples"):
        problem(quiet.http.get(path + below), 404, "job-not-found")
    problem(quiet.http.delete(path), 404, "job-not-found")
    problem(quiet.http.post(f"{path}/cancel"), 404, "job-not-found")
    assert quiet.http.get("/v1/jobs").json()["jobs"] == []
    assert quiet.jobs.doomed(10) == [job_id]


def test_a_job_that_has_not_ended_is_not_deleted_and_says_its_state(quiet: Quiet) -> None:
    for job_id, state in ((quiet.submit(), "queued"), (started(quiet), "running")):
        body = problem(quiet.http.delete(f"/v1/jobs/{job_id}"), 409, "state-conflict")
        assert body["state"] == state
        assert "cancel it first" in body["detail"]
        assert quiet.http.get(f"/v1/jobs/{job_id}").json()["state"] == state


def test_only_the_version_with_the_tag_is_deleted(quiet: Quiet) -> None:
    path = f"/v1/jobs/{ended(quiet)}"
    tag = quiet.http.get(path).headers["etag"]
    stale = quiet.http.delete(path, headers={"If-Match": '"1"'})
    problem(stale, 412, "version-conflict")
    problem(quiet.http.delete(path, headers={"If-Match": "nonsense"}), 422, "invalid-header")
    problem(quiet.http.delete(f"{path}?x=1"), 422, "invalid-query")
    assert quiet.http.delete(path, headers={"If-Match": tag}).status_code == 204
    problem(quiet.http.delete(path, headers={"If-Match": tag}), 404, "job-not-found")


def test_the_idempotency_key_of_a_deleted_job_is_free(quiet: Quiet) -> None:
    key = {"Idempotency-Key": "once"}
    first = quiet.http.post("/v1/jobs", json=BODY, headers=key).json()["id"]
    cancelled(quiet, first)
    assert quiet.http.delete(f"/v1/jobs/{first}").status_code == 204
    again = quiet.http.post("/v1/jobs", json={**BODY, "name": "another"}, headers=key)
    assert again.status_code == 201
    assert "idempotency-replayed" not in again.headers
    assert again.json()["id"] != first


def end_of_a_deleted_job(quiet: Quiet) -> tuple[str, str]:
    """State and reason in the last event of a stream whose job ended and was deleted at once."""
    job_id = started(quiet)
    reader = Reader(quiet, f"/v1/jobs/{job_id}/events")
    quiet.jobs.settle(quiet.jobs.get(job_id), JobState.FAILED, Reason.DIVERGED, "diverged")
    assert quiet.http.delete(f"/v1/jobs/{job_id}").status_code == 204
    last = reader.finish().strip().split("\n\n")[-1]
    assert last.startswith("event: end\n")
    data = json.loads(last.partition("data: ")[2])
    return data["state"], data["reason"]


def test_the_stream_of_a_job_that_is_deleted_says_so(quiet: Quiet) -> None:
    # A follower that happens to look between the two is told the end, which is true as well.
    assert end_of_a_deleted_job(quiet) in (("deleted", "deleted"), ("failed", "diverged"))


@pytest.mark.parametrize(("after", "spared"), [(0, 0), (1, 0), (1, 1)])
def test_a_job_may_be_deleted_before_any_read_of_its_stream(
    quiet: Quiet, monkeypatch: pytest.MonkeyPatch, after: int, spared: int
) -> None:
    job_id, reads = ended(quiet), itertools.count()

    def deleting(name: str) -> None:
        read = getattr(Results, name)

        def first(results: Results, *asked: Any) -> Any:
            if next(reads) == spared:
                assert quiet.http.delete(f"/v1/jobs/{job_id}").status_code == 204
            return read(results, *asked)

        monkeypatch.setattr(Results, name, first)

    deleting("events")
    deleting("tail")
    last = stream(quiet.http, f"/v1/jobs/{job_id}/events?after={after}")[-1]
    assert (last.event, json.loads(last.data)["state"]) == ("end", "deleted")


def test_a_job_asks_for_its_own_time(quiet: Quiet) -> None:
    retention = {"succeeded_s": None, "failed_s": 604800.0, "cancelled_s": 3600.0}
    job_id = quiet.submit(retention=retention)
    path = f"/v1/jobs/{job_id}"
    body = quiet.http.get(path).json()
    assert (body["retention"], body["expires_at"]) == (retention, None)
    assert quiet.http.get(f"{path}/spec").json()["retention"] == retention
    cancelled(quiet, job_id)
    body = quiet.http.get(path).json()
    kept = datetime.fromisoformat(body["expires_at"]) - datetime.fromisoformat(body["ended_at"])
    assert kept == timedelta(hours=1)
    kept_for_ever = quiet.http.get(f"/v1/jobs/{ended(quiet)}").json()
    assert kept_for_ever["expires_at"] is None
    assert kept_for_ever["retention"] == dict.fromkeys(retention)


@pytest.mark.parametrize("seconds", [0, 59, -1, 1e12, "3600", True])
def test_a_time_that_cannot_be_is_refused(quiet: Quiet, seconds: object) -> None:
    answer = quiet.http.post("/v1/jobs", json={**BODY, "retention": {"failed_s": seconds}})
    body = problem(answer, 422, "invalid-body")
    assert body["errors"][0]["pointer"] == "/retention/failed_s"


def test_there_is_no_sweep_before_the_first(quiet: Quiet) -> None:
    body = quiet.http.get("/v1/sweep").json()
    assert (body["state"], body["number"], body["findings"]) == ("none", 0, [])
    assert body["started_at"] is None


def test_a_sweep_of_another_kind_waits_for_the_first(quiet: Quiet) -> None:
    first = quiet.http.post("/v1/sweep?dry_run=true")  # nobody carries it out here
    assert (first.status_code, first.headers["location"]) == (202, "/v1/sweep")
    assert (first.json()["state"], first.json()["dry_run"]) == ("running", True)
    assert quiet.http.post("/v1/sweep?dry_run=true").json() == first.json()
    problem(quiet.http.post("/v1/sweep"), 409, "sweep-running")
    assert quiet.http.get("/v1/sweep").json() == first.json()
    problem(quiet.http.post("/v1/sweep?dry=1"), 422, "invalid-query")


def test_a_trained_job_goes_with_its_files_and_its_generators(
    running: Running, url: str, tmp_path: Path
) -> None:
    with Client(url) as client:
        job = client.submit(DIGITS).wait(60)
        before = running.http.get("/metrics").text
        job.samples(2)
        files = running.settings.data_dir / "artifacts" / "jobs" / job.id
        assert any(files.rglob("weights.safetensors"))
        events = stream(running.http, f"/v1/jobs/{job.id}/events", SSE)
        assert events[-1].event == "end"
        job.delete()
        for ask in (job.refresh, job.delete, lambda: job.samples(2), lambda: list(job.watch())):
            with pytest.raises(ApiError) as refusal:
                ask()
            assert refusal.value.problem.status == 404
        give_up_at = time.monotonic() + 30
        while files.exists():
            assert time.monotonic() < give_up_at
            time.sleep(0.01)
        swept = client.sweep(dry_run=True)
        assert (swept.state, swept.count) == ("done", 0)  # all that is here is young
        assert client.last_sweep() == swept
        parts = {part.name: part for part in client.ready().parts}
        assert parts["sweeper"].ready
    after = running.http.get("/metrics").text

    def value(text: str, name: str) -> float:
        return float(text.partition(f"\n{name} ")[2].partition("\n")[0])

    for name in ("spreadtrain_jobs_deleted_total", "spreadtrain_reclaimed_bytes_total"):
        assert value(after, name) > value(before, name)
