from typing import Any

import pytest

from api.render import VERBS
from service.jobs import JobState, Reason
from tests.factories import request, tiny_spec
from tests.unit.api.conftest import DIGITS, Quiet, Running
from tests.unit.api.test_problems import problem

BODY = request(name="first light", labels={"team": "a"}).model_dump(mode="json")


def without_estimate(answer: Any) -> Any:
    """A job without the time at which it starts, which is counted from now."""
    body = answer.json()
    body["queue"].pop("starts_at")
    return body


def cancelled(quiet: Quiet, job_id: str) -> None:
    message = "Cancelled before it started."
    quiet.change(
        job_id, lambda jobs, job: jobs.settle(job, JobState.CANCELLED, Reason.CANCELLED, message)
    )


def test_a_submission_is_created_with_its_address_and_version(quiet: Quiet) -> None:
    answer = quiet.http.post("/v1/jobs", json=BODY)
    assert answer.status_code == 201
    body = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{body['id']}" == body["links"]["self"]
    assert answer.headers["etag"] == '"1"'
    assert (body["state"], body["reason"]) == ("queued", "submitted")
    queue = body["queue"]
    assert (queue["ahead"], queue["not_before"]) == (0, None)
    assert body["attempts"] == []
    assert body["spec"]["dataset"]["digest"].startswith("sha256:")
    assert body["spec"]["trainer"]["network"]["output"] == "identity"
    assert without_estimate(quiet.http.get(answer.headers["location"])) == without_estimate(answer)


def test_the_queue_says_how_many_are_ahead(quiet: Quiet) -> None:
    first, second = quiet.submit(), quiet.submit()
    urgent = quiet.submit(priority=5)
    ahead = {
        job: quiet.http.get(f"/v1/jobs/{job}").json()["queue"]["ahead"]
        for job in (first, second, urgent)
    }
    assert ahead == {urgent: 0, first: 1, second: 2}


def test_the_same_key_and_body_answer_with_the_same_job(quiet: Quiet) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first = quiet.http.post("/v1/jobs", json=BODY, headers=headers)
    again = quiet.http.post("/v1/jobs", json=BODY, headers=headers)
    assert again.status_code == 201
    assert without_estimate(again) == without_estimate(first)
    assert again.headers["location"] == first.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert len(quiet.http.get("/v1/jobs").json()["jobs"]) == 1


def test_the_same_key_with_another_body_is_refused(quiet: Quiet) -> None:
    headers = {"Idempotency-Key": "k-1"}
    quiet.http.post("/v1/jobs", json=BODY, headers=headers)
    other = quiet.http.post("/v1/jobs", json={**BODY, "priority": 1}, headers=headers)
    problem(other, 422, "idempotency-conflict")


@pytest.mark.parametrize("key", ["", "a b", "ä", "x" * 256])
def test_a_key_that_cannot_be_kept_is_refused(quiet: Quiet, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode()}
    answer = quiet.http.post("/v1/jobs", json=BODY, headers=headers)
    problem(answer, 422, "invalid-header")


def test_a_dry_run_answers_with_costs_and_stores_nothing(quiet: Quiet) -> None:
    answer = quiet.http.post("/v1/jobs?dry_run=true", json=BODY)
    assert answer.status_code == 200
    plan = answer.json()
    assert plan["steps"] == 3 * 4  # 90 training data in batches of 25, three epochs
    assert plan["parameters"] > 0
    assert plan["storage_bytes"] > 0
    assert plan["memory_bytes"] > 0
    assert plan["waits_for"].startswith("nothing")
    assert plan["spec"]["dataset"]["digest"].startswith("sha256:")
    assert quiet.http.get("/v1/jobs").json()["jobs"] == []


def test_a_job_that_has_not_changed_is_not_sent_again(quiet: Quiet) -> None:
    path = f"/v1/jobs/{quiet.submit()}"
    etag = quiet.http.get(path).headers["etag"]
    same = quiet.http.get(path, headers={"If-None-Match": etag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    quiet.http.post(f"{path}/cancel")
    changed = quiet.http.get(path, headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.headers["etag"] != etag


def test_labels_are_replaced_only_in_the_version_that_was_read(quiet: Quiet) -> None:
    path = f"/v1/jobs/{quiet.submit(labels={'team': 'a'})}"
    etag = quiet.http.get(path).headers["etag"]
    new = {"labels": {"stage": "draft"}}
    first = quiet.http.patch(path, json=new, headers={"If-Match": etag})
    assert first.status_code == 200
    assert first.json()["labels"] == {"stage": "draft"}
    assert first.headers["etag"] != etag
    late = quiet.http.patch(path, json={"labels": {}}, headers={"If-Match": etag})
    problem(late, 412, "version-conflict")
    assert quiet.http.get(path).json()["labels"] == {"stage": "draft"}
    assert quiet.http.patch(path, json={"labels": {}}).json()["labels"] == {}


@pytest.mark.parametrize(
    ("patch", "where"),
    [
        ({}, "/labels"),
        ({"labels": {"bad key": "x"}}, "/labels/bad key"),
        ({"labels": {"a": 1}}, "/labels/a"),
        ({"label": {}}, "/label"),
        ({"labels": {f"k{i}": "" for i in range(33)}}, "/labels"),
    ],
)
def test_wrong_labels_are_a_problem_that_points_at_them(
    quiet: Quiet, patch: dict[str, Any], where: str
) -> None:
    answer = quiet.http.patch(f"/v1/jobs/{quiet.submit()}", json=patch)
    fields = problem(answer, 422, "invalid-body")["errors"]
    assert where in [field["pointer"] for field in fields]


def test_the_spec_of_a_job_can_be_submitted_again(quiet: Quiet) -> None:
    first = quiet.http.post("/v1/jobs", json={**BODY, "priority": 3}).json()
    answer = quiet.http.get(f"/v1/jobs/{first['id']}/spec")
    assert answer.status_code == 200
    again = quiet.http.post("/v1/jobs", json=answer.json()).json()
    for field in ("name", "labels", "priority", "limits", "spec", "spec_digest"):
        assert again[field] == first[field]
    assert again["id"] != first["id"]


def test_a_cancel_is_accepted_twice_and_says_what_will_become_of_the_job(quiet: Quiet) -> None:
    job = quiet.submit()
    for _ in range(2):
        answer = quiet.http.post(f"/v1/jobs/{job}/cancel")
        assert answer.status_code == 202
        body = answer.json()
        assert body["intent"] == "cancelled"
        assert body["job"]["cancel_requested"] is True
        assert body["job"]["state"] == "queued"
        assert answer.headers["etag"] == '"2"'
    cancelled(quiet, job)
    assert quiet.http.post(f"/v1/jobs/{job}/cancel").json()["job"]["state"] == "cancelled"


def test_a_job_that_has_succeeded_cannot_be_cancelled(running: Running) -> None:
    answer = running.http.post(f"/v1/jobs/{running.trained}/cancel")
    assert problem(answer, 409, "state-conflict")["state"] == "succeeded"


def test_a_list_is_paged_newest_first_and_stable_while_jobs_are_added(quiet: Quiet) -> None:
    jobs = [quiet.submit(name=str(index)) for index in range(7)]
    seen: list[str] = []
    params = {"limit": "3"}
    while True:
        page = quiet.http.get("/v1/jobs", params=params).json()
        seen += [job["id"] for job in page["jobs"]]
        quiet.submit(name="later")
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == jobs[::-1]


def test_a_list_is_filtered_by_everything_that_is_given(quiet: Quiet) -> None:
    vae = tiny_spec(kind="vae")
    plain = quiet.submit(labels={"team": "a", "stage": "x=y"})
    other = quiet.submit(spec=vae, labels={"team": "b"})
    gone = quiet.submit(labels={"team": "a"})
    cancelled(quiet, gone)

    def found(**params: str) -> list[str]:
        page = quiet.http.get("/v1/jobs", params=params).json()
        return [job["id"] for job in page["jobs"]]

    assert found() == [gone, other, plain]
    assert found(label="team") == [gone, other, plain]
    assert found(label="team=a") == [gone, plain]
    assert found(label="stage=x=y") == [plain]
    assert found(label="team=") == []
    assert found(label="none") == []
    assert found(trainer="vae") == [other]
    assert found(dataset="line") == [gone, other, plain]
    assert found(dataset="digits") == []
    assert found(state="cancelled") == [gone]
    assert found(state="queued", label="team=a", trainer="delta_vae", dataset="line") == [plain]


def test_a_finished_job_tells_its_whole_story(running: Running) -> None:
    body = running.http.get(f"/v1/jobs/{running.trained}").json()
    assert (body["state"], body["reason"]) == ("succeeded", "completed")
    assert body["progress"]["fraction"] == 1.0
    assert body["progress"]["step"] == body["progress"]["total_steps"]
    assert body["queue"] is None
    assert body["trainer"] == "delta_vae"
    assert body["dataset"] == "digits"
    assert body["labels"] == DIGITS["labels"]
    [attempt] = body["attempts"]
    assert (attempt["number"], attempt["reason"]) == (1, "completed")
    times = [attempt[f"{name}_at"] for name in ("created", "started", "first_step", "ended")]
    assert times == sorted(times)
    for name, path in body["links"].items():
        if name not in VERBS:
            assert running.http.get(path).status_code == 200, path


def test_a_head_has_the_headers_of_a_get_and_no_body(running: Running) -> None:
    job = f"/v1/jobs/{running.trained}"
    for path in (job, f"{job}/samples?n=2", f"{job}/checkpoints/latest/weights", "/livez"):
        head, get = running.http.head(path), running.http.get(path)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("etag", "content-length", "content-type", "cache-control"):
            assert head.headers.get(name) == get.headers.get(name)
    stream = running.http.head(f"{job}/events", headers={"Accept": "text/event-stream"})
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert "content-length" not in stream.headers
    assert running.services.feed.count() == 0
    assert running.http.head(f"{job}/cancel").status_code == 405
