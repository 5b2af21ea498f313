"""What a real service tells of itself while it trains on a real Ray: spans, log lines, figures."""

import json
import os
from pathlib import Path

import httpx2

from tests.e2e.conftest import Start
from tests.e2e.processes import spec
from tests.spans import only, spans_in

CALLERS = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADERS = {"traceparent": f"00-{CALLERS}-00f067aa0ba902b7-01", "X-Request-Id": "mine"}


def test_a_request_leads_to_the_workers_span_and_its_ids_stand_in_the_log(
    start: Start, tmp_path: Path
) -> None:
    folder = tmp_path / "spans"
    asked = {"SPREADTRAIN_TRACING": folder.as_uri(), "SPREADTRAIN_LOG_FORMAT": "json"}
    service = start(**asked)
    answer = httpx2.post(f"{service.url}/v1/jobs", json={"spec": spec(2)}, headers=HEADERS)
    assert answer.headers["x-request-id"] == "mine"
    job_id = answer.json()["id"]
    assert service.client.job(job_id).wait(240).state == "succeeded"
    assert service.stop() == 0

    found = spans_in(folder)
    attempt, train = only(found, "attempt"), only(found, "train")
    assert only(found, "POST /v1/jobs").pid == service.process.pid
    assert {attempt.trace, train.trace, only(found, "start attempt").trace} == {CALLERS}
    assert attempt.parent == only(found, "start attempt").id
    assert train.parent == attempt.id
    assert train.pid not in (service.process.pid, os.getpid())

    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    submitted = next(line for line in lines if "is submitted" in line["message"])
    assert submitted.items() >= {"job": job_id, "request": "mine", "trace": CALLERS}.items()
    ended = next(line for line in lines if "is succeeded" in line["message"])
    assert ended.items() >= {"job": job_id, "attempt": "1", "trace": CALLERS}.items()
