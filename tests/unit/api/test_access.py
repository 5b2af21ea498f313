"""Who is let in, and who may do what: keys, scopes, owners."""

import re
import threading
import time
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from api.app import describe
from api.guard import KEYS_KEPT_S
from api.scopes import needed_scope
from service.access.keys import KeyLimits, Scope, new_secret
from service.jobs import Job, JobState, Reason
from service.jobstore import JobStore
from tests.trials import running_study, study_body, trained_trial
from tests.unit.api.conftest import Quiet
from tests.unit.api.keyed import body, holder
from tests.unit.api.test_problems import problem
from tests.unit.api.test_study_samples import MOONS, at
from tests.unit.workers.uploading import GOOD

DOCUMENT = describe()
OPERATIONS = [
    (method.upper(), path, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
]
OPEN = {"livez", "readyz", "metrics"}
FOR_ADMINS = {"start_sweep", "get_sweep", "list_audit"}
CHANGING = {
    *("submit_job", "set_labels", "delete_job", "cancel_job", "pause_job", "resume_job"),
    *("retry_job", "fork_job", "put_dataset", "delete_dataset"),
    *("submit_study", "extend_study", "delete_study", "cancel_study", "pause_study"),
    *("resume_study", "retry_study", "promote_trial"),
}


def scope_of(operation: dict[str, Any]) -> str | None:
    """The scope that the document says."""
    needs = operation["security"]
    if not needs:
        return None
    assert needs[0] == {}  # an installation without keys needs none
    (scope,) = needs[1]["api_key"]
    return str(scope)


def filled(path: str) -> str:
    """A path that leads to nothing."""
    return re.sub(r"\{[^}]*\}", "nothing", path)


def test_without_a_key_everything_is_as_it_was(quiet: Quiet) -> None:
    job = quiet.submit()
    assert quiet.http.get(f"/v1/jobs/{job}").json()["owner"] is None
    assert quiet.http.get("/v1/audit").json() == {"entries": [], "next_before": None}
    assert quiet.http.post(f"/v1/jobs/{job}/cancel").status_code == 202


def test_every_operation_names_the_scope_that_it_needs() -> None:
    found = {operation["operationId"]: scope_of(operation) for _, _, operation in OPERATIONS}
    expected = dict.fromkeys(found, "read")
    expected |= dict.fromkeys(CHANGING, "write") | dict.fromkeys(FOR_ADMINS, "admin")
    assert found == expected | dict.fromkeys(OPEN, None)
    (scheme,) = DOCUMENT["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")


def test_only_what_computes_is_posted_with_a_key_for_reading() -> None:
    assert needed_scope("POST", "/v1/jobs/job-1/sources") is Scope.READ
    for method, path in (
        ("DELETE", "/v1/jobs/sources"),
        ("PATCH", "/v1/jobs/sources"),
        ("POST", "/v1/jobs/sources"),
        ("POST", "/v1/jobs/job-1/cancel/sources"),
        ("PUT", "/v1/datasets/sources"),
        ("DELETE", "/livez/"),
    ):
        assert needed_scope(method, path) is Scope.WRITE, path
    assert needed_scope("GET", "/v1/sweep/1") is Scope.ADMIN


def test_once_there_is_a_key_nobody_without_one_gets_in(quiet: Quiet) -> None:
    holder(quiet, "ana")
    for method, path, operation in OPERATIONS:
        if operation["operationId"] in OPEN:
            continue
        for sent, kind in (
            ({}, "key-needed"),
            ({"Authorization": "Basic YW5hOmFuYQ=="}, "key-needed"),
            ({"Authorization": "Bearer "}, "key-needed"),
            ({"Authorization": f"Bearer {new_secret()}"}, "unknown-key"),
            ({"Authorization": "Bearer x"}, "unknown-key"),
        ):
            answer = quiet.http.request(method, filled(path), headers=sent)
            problem(answer, 401, kind)
            assert answer.headers["www-authenticate"].startswith("Bearer realm=")
    problem(quiet.http.get("/v1/nothing"), 401, "key-needed")


def test_the_state_of_the_service_and_its_document_need_no_key(quiet: Quiet) -> None:
    holder(quiet, "ana")
    for path in ("/livez", "/readyz", "/metrics", "/docs"):
        assert quiet.http.get(path).status_code in (200, 503), path
    assert needed_scope("GET", "/openapi.json") is None


def test_each_scope_includes_those_before_it_and_no_more(quiet: Quiet) -> None:
    order = [scope.value for scope in Scope]
    included = [[scope.value for scope in Scope if one.includes(scope)] for one in Scope]
    assert included == [["read"], ["read", "write"], ["read", "write", "admin"]]
    holders = {scope: holder(quiet, "ana", Scope(scope)) for scope in order}
    for method, path, operation in OPERATIONS:
        needed = scope_of(operation)
        if needed is None:
            continue
        for scope in order[: order.index(needed) + 1]:
            answer = holders[scope].ask(method, filled(path))
            is_refused = order.index(scope) < order.index(needed)
            assert (answer.status_code == 403) == is_refused, (scope, operation["operationId"])
            if is_refused:
                problem(answer, 403, "insufficient-scope")
                assert f'scope="{needed}"' in answer.headers["www-authenticate"]


def test_with_read_one_sees_everything_and_changes_nothing(quiet: Quiet) -> None:
    job = holder(quiet, "ana").submit()
    reader = holder(quiet, "ben", Scope.READ)
    assert reader.ask("GET", f"/v1/jobs/{job}").json()["owner"] == "ana"
    assert len(reader.ask("GET", "/v1/jobs").json()["jobs"]) == 1
    for method, path in (
        ("POST", "/v1/jobs"),
        ("POST", f"/v1/jobs/{job}/cancel"),
        ("PATCH", f"/v1/jobs/{job}"),
        ("DELETE", f"/v1/jobs/{job}"),
        ("PUT", "/v1/datasets/mine"),
        ("POST", "/v1/studies"),
    ):
        problem(reader.ask(method, path, json={}), 403, "insufficient-scope")
    assert not quiet.jobs.get(job).cancel_requested


def test_with_write_one_changes_ones_own_jobs_and_an_admin_all(quiet: Quiet) -> None:
    nobodys = quiet.submit()
    ana, ben = holder(quiet, "ana"), holder(quiet, "ben")
    admin = holder(quiet, "carl", Scope.ADMIN)
    job = ana.submit()
    changes: list[tuple[str, str, Any]] = [
        ("POST", "/cancel", None),
        ("POST", "/pause", None),
        ("POST", "/resume", None),
        ("POST", "/retry", None),
        ("PATCH", "", {"labels": {"a": "b"}}),
        ("DELETE", "", None),
    ]
    before = quiet.jobs.get(job)
    for method, below, sent in changes:
        for of in (job, nobodys):
            problem(ben.ask(method, f"/v1/jobs/{of}{below}", json=sent), 403, "not-yours")
    assert quiet.jobs.get(job) == before
    labels = {"labels": {"a": "b"}}
    assert ana.ask("PATCH", f"/v1/jobs/{job}", json=labels).status_code == 200
    # Another key of the same owner is as good: so one replaces the other.
    assert holder(quiet, "ana").ask("POST", f"/v1/jobs/{job}/pause").status_code == 202
    for of in (job, nobodys):
        assert admin.ask("POST", f"/v1/jobs/{of}/cancel").status_code == 202
    problem(ben.ask("POST", "/v1/jobs/job-none/cancel"), 404, "job-not-found")


def test_a_study_is_its_owners_and_so_are_its_trials(quiet: Quiet) -> None:
    ana, ben = holder(quiet, "ana"), holder(quiet, "ben")
    study = ana.ask("POST", "/v1/studies", json=study_body()).json()
    assert study["owner"] == "ana"
    path = study["links"]["self"]
    for method, below, sent in (
        *(("POST", f"/{verb}", None) for verb in ("cancel", "pause", "resume", "retry")),
        ("PATCH", "", {"budget": {"trials": 99}}),
        ("DELETE", "", None),
    ):
        problem(ben.ask(method, f"{path}{below}", json=sent), 403, "not-yours")
    assert ana.ask("POST", f"{path}/pause").status_code == 202
    assert ana.ask("POST", f"{path}/resume").status_code == 202
    problem(ben.ask("POST", "/v1/studies/study-none/cancel"), 404, "study-not-found")


def test_a_data_set_is_moved_and_deleted_by_its_owner(quiet: Quiet) -> None:
    ana, ben = holder(quiet, "ana"), holder(quiet, "ben")
    files = list(GOOD.values())[:2]
    made = ana.ask("PUT", "/v1/datasets/faces", content=files[0])
    assert (made.status_code, made.json()["owner"]) == (201, "ana")
    if_match = {"If-Match": "*"}
    problem(ben.ask("PUT", "/v1/datasets/faces", if_match, content=files[1]), 403, "not-yours")
    problem(ben.ask("DELETE", "/v1/datasets/faces"), 403, "not-yours")
    assert ana.ask("DELETE", "/v1/datasets/faces").status_code == 204


def test_what_goes_on_from_anybodys_job_is_its_makers_and_counts_for_him(
    quiet: Quiet, tmp_path: Path
) -> None:
    study = running_study(quiet.jobs, spec=MOONS)
    trial = trained_trial(
        quiet.jobs, quiet.artifacts, tmp_path, study, 0, at(0.3), {"kid_pca": 0.1}
    )
    ana = holder(quiet, "ana", limits=KeyLimits(running=2))
    ways = (
        (f"/v1/jobs/{trial.job_id}/fork", {"start": "weights"}),
        (f"/v1/studies/{study.id}/promote", {"configuration": 0, "epochs": 5}),
    )
    for path, sent in ways:
        answer = ana.ask("POST", path, json=sent)
        assert answer.status_code == 202, answer.text
        made = answer.json()["job"]
        assert (made["owner"], made["parent"]["job"]) == ("ana", trial.job_id)
    copies = len(list(quiet.artifacts.list("jobs")))
    for path, sent in ways:
        problem(ana.ask("POST", path, json=sent), 429, "too-many-jobs")
    assert len(list(quiet.artifacts.list("jobs"))) == copies  # nothing is left of what was refused


def test_two_owners_may_choose_the_same_idempotency_key(quiet: Quiet) -> None:
    once = {"Idempotency-Key": "once"}
    ana, ben = holder(quiet, "ana"), holder(quiet, "ben")
    first = ana.ask("POST", "/v1/jobs", once, json=body())
    again = ana.ask("POST", "/v1/jobs", once, json=body())
    other = ben.ask("POST", "/v1/jobs", once, json=body())
    assert first.json()["id"] == again.json()["id"] != other.json()["id"]
    assert other.json()["owner"] == "ben"
    assert ben.ask("POST", "/v1/jobs", once, json=body(name="b")).status_code == 422


def test_a_key_that_was_just_made_opens_and_a_revoked_one_soon_does_not(quiet: Quiet) -> None:
    ana = holder(quiet, "ana")
    assert ana.ask("GET", "/v1/jobs").status_code == 200
    later = holder(quiet, "ben")
    assert later.ask("GET", "/v1/jobs").status_code == 200
    quiet.jobs.keys.revoke(ana.key_id)
    while ana.ask("GET", "/v1/jobs").status_code == 200:
        time.sleep(KEYS_KEPT_S / 20)
    problem(ana.ask("GET", "/v1/jobs"), 401, "unknown-key")
    # Nothing opens when the last key is gone, either.
    quiet.jobs.keys.revoke(later.key_id)
    while later.ask("GET", "/v1/jobs").status_code == 200:
        time.sleep(KEYS_KEPT_S / 20)
    problem(quiet.http.get("/v1/jobs"), 401, "key-needed")


def said(text: str, jobs: JobStore, job: Job) -> Job:
    """The job with something new to say of itself."""
    return jobs.explain(job, Reason.WAITING_FOR_RESOURCES, text)


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json;q=0, */*"])
def test_a_stream_is_broken_off_when_its_key_is_revoked(quiet: Quiet, accept: str) -> None:
    ana = holder(quiet, "ana")
    job = ana.submit()
    read: list[str] = []

    def follow() -> None:
        read.append(ana.ask("GET", f"/v1/jobs/{job}/events", {"Accept": accept}).text)

    follower = threading.Thread(target=follow)
    follower.start()
    while quiet.feed.count() == 0:
        time.sleep(0.01)
    quiet.jobs.keys.revoke(ana.key_id)
    for number in count():  # every word to it is a look at its key
        if not follower.is_alive():
            break
        quiet.change(job, partial(said, f"waits, {number}"))
        follower.join(0.1)
    assert "event: end" not in read[0]
    assert quiet.jobs.get(job).state is JobState.QUEUED
    assert quiet.feed.count() == 0


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/studies", "/v1/jobs/job-1/fork"])
def test_who_has_no_key_makes_the_service_read_no_body(quiet: Quiet, path: str) -> None:
    holder(quiet, "ana")
    answer = quiet.http.post(path, content=b"{" * 50_000)
    problem(answer, 401, "key-needed")
