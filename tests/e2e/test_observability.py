"""What a real service tells of itself while it trains on a real Ray: spans, log lines, figures."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx2

from tests.e2e.conftest import Start
from tests.e2e.processes import ROOT, spec
from tests.spans import only, spans_in

CALLERS = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADERS = {"traceparent": f"00-{CALLERS}-00f067aa0ba902b7-01", "X-Request-Id": "mine"}


def test_a_request_is_followed_into_the_worker_by_its_trace_and_its_ids_and_all_parts_are_sound(
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

    checked = subprocess.run(
        [sys.executable, "-m", "api.cli", "check", "--data-dir", str(service.data_dir)],
        cwd=ROOT,
        env={**os.environ, **asked, "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert re.search(r"ray +ok +an own one starts", checked.stdout)

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
