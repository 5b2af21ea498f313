from typing import Any

import pytest

from api.patching import TooDeep, merged
from service.jobs import Job, JobState, Reason
from service.jobstore import JobStore
from tests.contract.jobstore.making import attempt
from tests.unit.api.conftest import Quiet, Running
from tests.unit.api.test_events import SSE
from tests.unit.api.test_problems import problem


def ask(quiet: Quiet, job: str, verb: str, body: Any = None) -> Any:
    return quiet.http.post(f"/v1/jobs/{job}/{verb}", **({} if body is None else {"json": body}))


def start(jobs: JobStore, job: Job) -> None:
    jobs.start_attempt(job, attempt(job), Reason.STARTING, "starting")


def end(quiet: Quiet, job: str, to: JobState) -> None:
    quiet.change(job, start)
    quiet.change(job, lambda jobs, now: jobs.settle(now, to, Reason.DIVERGED, "ended"))


def test_a_queued_job_is_paused_listed_and_resumed(quiet: Quiet) -> None:
    job = quiet.submit()
    for _ in range(2):
        answer = ask(quiet, job, "pause")
        assert answer.status_code == 202
        body = answer.json()
        assert (body["intent"], body["job"]["state"]) == ("paused", "paused")
        assert body["job"]["queue"] is None
        assert answer.headers["etag"] == '"2"'
    found = quiet.http.get("/v1/jobs", params={"state": "paused"}).json()["jobs"]
    assert [one["id"] for one in found] == [job]
    assert (
        'spreadtrain_jobs{source="database",state="paused"} 1.0' in quiet.http.get("/metrics").text
    )
    for _ in range(2):
        body = ask(quiet, job, "resume").json()
        assert (body["intent"], body["job"]["state"]) == ("running", "queued")
        assert body["job"]["reason"] == "resumed"


def test_a_running_job_says_that_it_is_to_pause(quiet: Quiet) -> None:
    job = quiet.submit()
    quiet.change(job, start)
    body = ask(quiet, job, "pause").json()
    assert body["job"]["state"] == "running"
    assert body["job"]["pause_requested"] is True
    assert ask(quiet, job, "resume").json()["job"]["pause_requested"] is False


def test_a_failed_job_is_retried_with_other_limits(quiet: Quiet) -> None:
    job = quiet.submit(limits={"max_wall_s": 10.0, "max_attempts": 2})
    end(quiet, job, JobState.FAILED)
    for body in ({"limits": {"max_wall_s": 60.0}}, {}, None):
        answer = ask(quiet, job, "retry", body)
        assert answer.status_code == 202, answer.text
        said = answer.json()
        assert (said["intent"], said["job"]["state"]) == ("running", "queued")
        assert said["job"]["limits"] == {"max_wall_s": 60.0, "max_attempts": 2}
    late = ask(quiet, job, "retry", {"limits": {"max_wall_s": 61.0}})
    assert problem(late, 409, "state-conflict")["state"] == "queued"


@pytest.mark.parametrize(
    ("state", "verbs"),
    [
        (JobState.SUCCEEDED, ("cancel", "pause", "resume", "retry")),
        (JobState.FAILED, ("cancel", "pause", "resume")),
        (JobState.CANCELLED, ("pause", "resume")),
    ],
)
def test_what_the_state_forbids_is_a_conflict_that_names_it(
    quiet: Quiet, state: JobState, verbs: tuple[str, ...]
) -> None:
    job = quiet.submit()
    end(quiet, job, state)
    for verb in verbs:
        assert problem(ask(quiet, job, verb), 409, "state-conflict")["state"] == state


@pytest.mark.parametrize("verb", ["pause", "resume", "retry", "fork"])
def test_a_job_that_is_not_there_has_no_verbs(quiet: Quiet, verb: str) -> None:
    problem(ask(quiet, "job-none", verb, {} if verb == "fork" else None), 404, "job-not-found")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"limits": {"max_wall_s": -1}}, "/limits/max_wall_s"),
        ({"limit": {}}, "/limit"),
    ],
)
def test_wrong_limits_are_pointed_at(quiet: Quiet, body: dict[str, Any], pointer: str) -> None:
    job = quiet.submit()
    end(quiet, job, JobState.FAILED)
    fields = problem(ask(quiet, job, "retry", body), 422, "invalid-body")["errors"]
    assert [field["pointer"] for field in fields] == [pointer]


def test_a_limit_is_lifted_by_null(running: Running) -> None:
    limits = {"max_wall_s": 1000.0, "max_attempts": 2}
    lift = {"limits": {"max_wall_s": None}}
    without = {"max_wall_s": None, "max_attempts": 2}
    body = {"spec": {"trainer": {"epochs": 1}}, "start": "weights"}
    limited = fork(running, {**body, "limits": limits}).json()["job"]["id"]
    running.http.get(f"/v1/jobs/{limited}/events", headers={"Accept": "text/event-stream"})
    made = running.http.post(f"/v1/jobs/{limited}/fork", json={**body, **lift}).json()["job"]
    assert made["limits"] == without
    running.http.post(f"/v1/jobs/{made['id']}/cancel")


def fork(running: Running, body: dict[str, Any], **headers: str) -> Any:
    return running.http.post(f"/v1/jobs/{running.trained}/fork", json=body, headers=headers)


def test_a_fork_is_a_job_of_its_own_with_its_parents_spec_but_for_the_changes(
    running: Running,
) -> None:
    body = {
        "spec": {"trainer": {"epochs": 4, "optimizer": {"learning_rate": 1e-5}}},
        "name": "cooler",
        "limits": {"max_attempts": 5},
    }
    key = {"Idempotency-Key": "fork-1"}
    answer = fork(running, body, **key)
    assert answer.status_code == 202, answer.text
    assert answer.json()["intent"] == "running"
    job = answer.json()["job"]
    parent = running.http.get(f"/v1/jobs/{running.trained}").json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}" == job["links"]["self"]
    assert (job["name"], job["labels"]) == ("cooler", parent["labels"])
    assert job["limits"] == {"max_wall_s": None, "max_attempts": 5}
    expected = parent["spec"]
    expected["trainer"]["epochs"] = 4
    expected["trainer"]["optimizer"]["learning_rate"] = 1e-5
    assert job["spec"] == expected
    checkpoints = running.http.get(f"/v1/jobs/{running.trained}/checkpoints").json()["checkpoints"]
    assert job["parent"] == {
        "job": running.trained,
        "checkpoint": checkpoints[-1]["id"],
        "digest": checkpoints[-1]["digest"],
        "start": "train_state",
    }
    assert job["id"] in parent["forks"]
    assert job["links"]["parent"] == f"/v1/jobs/{running.trained}"
    again = fork(running, body, **key)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json()["job"]["id"] == job["id"]
    problem(fork(running, {**body, "name": "other"}, **key), 422, "idempotency-conflict")


def test_a_fork_is_replayed_whatever_has_become_of_its_parent(running: Running) -> None:
    key = {"Idempotency-Key": "fork-of-a-changed-one"}
    body = {"start": "weights", "spec": {"trainer": {"epochs": 1}}}
    parent = fork(running, body).json()["job"]
    path = f"/v1/jobs/{parent['id']}"
    assert "event: end" in running.http.get(f"{path}/events", headers=SSE).text

    def forked() -> Any:
        answer = running.http.post(f"{path}/fork", json=body, headers=key)
        assert answer.status_code == 202, answer.text
        return answer.json()["job"]["id"]

    first = forked()
    assert running.http.patch(path, json={"labels": {"now": "other"}}).status_code == 200
    assert forked() == first
    assert running.http.delete(path).status_code == 204
    assert forked() == first


def test_encoders_are_fitted_anew_in_a_fork_that_names_little_more_than_the_scales(
    running: Running,
) -> None:
    budget = {"scales": [0.2, 0.4, 0.8], "steps": 5, "rows": 40, "importance_samples": 20}
    trainer = {"kind": "refit_encoder", **budget}
    refused = fork(running, {"spec": {"trainer": trainer}})
    [field] = problem(refused, 422, "invalid-spec")["errors"]
    assert (field["pointer"], 'start "weights"' in field["message"]) == ("/spec/trainer/kind", True)
    answer = fork(running, {"start": "weights", "spec": {"trainer": trainer}})
    assert answer.status_code == 202, answer.text
    job = answer.json()["job"]
    parent = running.http.get(f"/v1/jobs/{running.trained}").json()
    assert job["trainer"] == "refit_encoder"
    assert job["spec"]["dataset"] == parent["spec"]["dataset"]
    assert job["spec"]["trainer"]["network"] == parent["spec"]["trainer"]["network"]
    path = f"/v1/jobs/{job['id']}"
    events = running.http.get(f"{path}/events", headers={"Accept": "text/event-stream"}).text
    assert '"state":"succeeded"' in events, events
    values = running.http.get(f"{path}/metrics").json()["metrics"]
    report = running.http.get(f"{path}/artifacts/quality/reference_scales.json").json()["measures"]
    for scale in ("0.2", "0.4", "0.8"):
        name = f"log_likelihood_gaussian_{scale}"
        assert [point["value"] for point in values[name]] == [report[name]["value"]]
        assert report[name]["reference"] == 40
    found = running.http.get(f"{path}/checkpoints").json()["checkpoints"]
    assert [checkpoint["step"] for checkpoint in found] == [5, 10, 15]
    for query in ("samples?n=4", "reconstructions?n=2", "explain"):
        assert running.http.get(f"{path}/{query}").status_code == 200
    ours, theirs = (
        running.http.get(f"/v1/jobs/{job_id}/samples?n=4").content
        for job_id in (job["id"], running.trained)
    )
    assert ours == theirs  # the decoder is the parent's


@pytest.mark.parametrize(
    ("body", "kind", "pointer"),
    [
        ({"spec": {"trainer": {"epochs": 3}}}, "invalid-spec", "/spec/trainer/epochs"),
        ({"spec": {"trainer": {"epoch": 9}}}, "invalid-body", "/spec/trainer/epoch"),
        ({"spec": {"trainer": {"epochs": "9"}}}, "invalid-body", "/spec/trainer/epochs"),
        ({"spec": {"dataset": None}}, "invalid-body", "/spec/dataset"),
        ({"start": "nothing"}, "invalid-body", "/start"),
        ({"priority": 1000}, "invalid-body", "/priority"),
        ({"from": "latest"}, "invalid-body", "/from"),
        (
            {"spec": {"trainer": {"network": {"latent_dim": 5}}}, "start": "weights"},
            "invalid-spec",
            "/spec/trainer/network/latent_dim",
        ),
        (
            {"spec": {"dataset": {"name": "mnist-10k"}}, "start": "weights"},
            "invalid-spec",
            "/spec/dataset",
        ),
    ],
)
def test_a_fork_that_cannot_be_is_refused_at_its_field(
    running: Running, body: dict[str, Any], kind: str, pointer: str
) -> None:
    fields = problem(fork(running, body), 422, kind)["errors"]
    assert pointer in [field["pointer"] for field in fields]


def test_a_checkpoint_that_is_not_there_is_404(running: Running) -> None:
    problem(fork(running, {"checkpoint": "00000007"}), 404, "checkpoint-not-found")


def test_a_patch_that_is_nested_too_deeply_is_refused(running: Running) -> None:
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"a": deep}
    fields = problem(fork(running, {"spec": deep}), 422, "invalid-body")["errors"]
    assert [field["pointer"] for field in fields] == ["/spec"]


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        # The examples of RFC 7396, appendix A.
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch_does_what_its_standard_says(target: Any, patch: Any, result: Any) -> None:
    before = repr(target)
    assert merged(target, patch) == result
    assert repr(target) == before


def test_a_deep_patch_is_an_error_of_its_own() -> None:
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"a": deep}
    with pytest.raises(TooDeep):
        merged({}, deep)
