import shlex
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import CliRunner

from api import bodies
from api.cli import app
from api.client import Client
from service.jobs import Job, JobState, Reason
from service.jobstore import JobStore
from tests.contract.jobstore.making import attempt
from tests.unit.api.conftest import Quiet, Running
from tests.unit.api.test_problems import problem
from workers.events import Exit


def explained(quiet: Quiet, job: str) -> Any:
    answer = quiet.http.get(f"/v1/jobs/{job}/explain")
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


def start(jobs: JobStore, job: Job) -> None:
    jobs.start_attempt(job, attempt(job), Reason.STARTING, "starting")


def fail(quiet: Quiet, job: str, reason: Reason, exit: Exit | None = None) -> None:
    quiet.change(job, start)
    quiet.change(
        job, lambda jobs, now: jobs.settle(now, JobState.FAILED, reason, "Lost.", attempt_exit=exit)
    )


def test_a_waiting_job_says_who_holds_what_it_asks_for(quiet: Quiet) -> None:
    holder, job = quiet.submit(), quiet.submit()
    quiet.change(holder, start)
    body = explained(quiet, job)
    assert (body["state"], body["rule"]["name"]) == ("queued", "capacity")
    resources = body["resources"]
    assert resources["asked"] == {"workers": 1, "cpus_per_worker": 1, "gpus_per_worker": 0}
    assert resources["capacity"] == {"cpus": 1.0, "gpus": 0.0}
    assert resources["free"] == {"cpus": 0.0, "gpus": 0.0}
    assert [held["job"] for held in resources["held"]] == [holder]
    assert resources["others"] is None
    assert body["queue"]["ahead"] == 0
    assert body["queue"]["starts_at"] is None
    assert holder in body["queue"]["basis"]
    shown = quiet.http.get(f"/v1/jobs/{job}").json()
    assert shown["links"]["explain"] == body["links"]["self"] == f"/v1/jobs/{job}/explain"
    assert shown["queue"] == body["queue"]


def test_what_would_change_it_can_be_sent_as_it_stands(quiet: Quiet) -> None:
    holder, job = quiet.submit(), quiet.submit()
    quiet.change(holder, start)
    first = explained(quiet, job)["changes"][0]
    assert first["command"] == f"spreadtrain pause {holder}"
    asked = first["request"]
    assert quiet.http.request(asked["method"], asked["path"], json=asked["body"]).is_success
    assert quiet.http.get(f"/v1/jobs/{holder}").json()["pause_requested"]


@pytest.mark.parametrize("reason", list(Reason))
def test_every_request_that_is_offered_is_one_that_the_service_takes(
    quiet: Quiet, reason: Reason
) -> None:
    job = quiet.submit()
    fail(quiet, job, reason)
    for change in explained(quiet, job)["changes"]:
        if (asked := change["request"]) is None:
            continue
        answer = quiet.http.request(asked["method"], asked["path"], json=asked["body"])
        assert answer.status_code in (200, 202, 503), (change, answer.text)
        if asked["method"] == "POST":
            quiet.http.post(f"/v1/jobs/{job}/cancel")


def test_a_killed_attempt_shows_its_evidence(quiet: Quiet) -> None:
    job = quiet.submit()
    seen = Exit(signal="SIGKILL", detail="its connection ended", oom_kills=1)
    fail(quiet, job, Reason.OUT_OF_MEMORY, seen)
    body = explained(quiet, job)
    (link,) = body["attempts"]
    assert link["exit"] == {"signal": "SIGKILL", "code": None, "detail": "its connection ended"}
    assert link["memory"] == {"peak_rss_bytes": None, "oom_kills": 1, "by_memory_monitor": False}
    assert link["counts"] is True
    assert "SIGKILL ended its process" in body["headline"]
    assert body["resources"] is None
    assert body["rule"]["name"] == "max_attempts"


def test_a_job_that_is_not_there_is_not_explained(quiet: Quiet) -> None:
    problem(quiet.http.get("/v1/jobs/job-none/explain"), 404, "job-not-found")
    problem(quiet.http.get("/v1/jobs/job-none/explain?why=1"), 422, "invalid-query")


def test_the_plan_says_where_the_job_would_stand(quiet: Quiet) -> None:
    quiet.submit()
    body = quiet.http.get(f"/v1/jobs/{quiet.submit()}/spec").json()
    plan = quiet.http.post("/v1/jobs?dry_run=true", json=body).json()
    assert plan["queue"]["ahead"] == 2
    assert plan["queue"]["starts_at"] is None
    ahead = quiet.http.post("/v1/jobs?dry_run=true", json={**body, "priority": 1}).json()["queue"]
    assert ahead["ahead"] == 0
    assert datetime.fromisoformat(ahead["starts_at"]) <= datetime.now(UTC)


def test_the_client_reads_an_explanation(url: str, running: Running) -> None:
    with Client(url) as client:
        said = client.job(running.trained).explain()
    assert isinstance(said, bodies.ExplanationBody)
    assert (said.state, said.rule.name) == ("succeeded", "completed")
    assert said.attempts[0].memory.peak_rss_bytes


def test_the_command_explains_in_a_readable_way(url: str, running: Running) -> None:
    held = running.http.post(
        "/v1/jobs",
        json={
            "spec": {
                "dataset": {"kind": "ring"},
                "trainer": {"kind": "delta_vae", "epochs": 100_000},
            }
        },
    ).json()["id"]
    waits = running.http.post(
        "/v1/jobs",
        json={"spec": {"dataset": {"kind": "ring"}, "trainer": {"kind": "delta_vae"}}},
    ).json()["id"]
    runner = CliRunner(env={"SPREADTRAIN_URL": url, "COLUMNS": "200"})
    result = runner.invoke(app, ["explain", waits])
    assert result.exit_code == 0, result.output
    assert f"{waits} queued" in result.stdout
    assert "capacity: " in result.stdout or "about_to_start: " in result.stdout
    assert "what would change it" in result.stdout
    command = next(line for line in result.stdout.splitlines() if "spreadtrain pause" in line)
    assert runner.invoke(app, shlex.split(command)[1:]).exit_code == 0
    listed = runner.invoke(app, ["list", "--limit", "2"]).stdout
    assert "reason" in listed
    for job in (waits, held):
        running.http.post(f"/v1/jobs/{job}/cancel")
