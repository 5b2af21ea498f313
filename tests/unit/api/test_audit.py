"""The record of who did what."""

from typing import Any

import pytest

from service.access.keys import Scope
from service.errors import NotReady
from tests.unit.api.conftest import Quiet
from tests.unit.api.keyed import Holder, body, holder
from tests.unit.api.test_problems import problem


def entries(admin: Holder, query: str = "") -> list[dict[str, Any]]:
    answer = admin.ask("GET", f"/v1/audit{query}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["entries"]
    return found


def test_what_changes_something_is_on_record_with_who_asked_and_the_answer(quiet: Quiet) -> None:
    ana, ben = holder(quiet, "ana"), holder(quiet, "ben")
    admin = holder(quiet, "carl", Scope.ADMIN)
    made = ana.ask("POST", "/v1/jobs", {"X-Request-ID": "first"}, json=body())
    job = made.headers["location"]
    ana.ask("GET", job)  # reading is not
    ben.ask("POST", f"{job}/cancel")
    ben.ask("POST", "/v1/jobs", json={})
    found = entries(admin)
    seen = [(e["owner"], e["action"], e["target"], e["status"], e["made"]) for e in found]
    assert seen == [
        ("ben", "POST", "/v1/jobs", 422, None),
        ("ben", "POST", f"{job}/cancel", 403, None),
        ("ana", "POST", "/v1/jobs", 201, job),
    ]
    assert (found[-1]["key"], found[-1]["request_id"]) == (ana.key_id, "first")
    assert found[-1]["client"] == "testclient"
    assert [e["owner"] for e in entries(admin, "?owner=ana")] == ["ana"]
    (newest,) = entries(admin, "?limit=1")
    assert entries(admin, f"?before={newest['seq']}") == found[1:]


def test_a_data_set_called_events_is_on_record_as_any_other(quiet: Quiet) -> None:
    ana, admin = holder(quiet, "ana"), holder(quiet, "carl", Scope.ADMIN)
    assert ana.ask("PUT", "/v1/datasets/events", content=b"nothing").status_code == 422
    assert ana.ask("DELETE", "/v1/datasets/events").status_code == 404
    seen = [(e["action"], e["target"]) for e in entries(admin)]
    assert seen == [("DELETE", "/v1/datasets/events"), ("PUT", "/v1/datasets/events")]


def test_the_record_is_for_admins_and_nobody_can_change_it(quiet: Quiet) -> None:
    ana, admin = holder(quiet, "ana"), holder(quiet, "carl", Scope.ADMIN)
    problem(ana.ask("GET", "/v1/audit"), 403, "insufficient-scope")
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        problem(admin.ask(method, "/v1/audit"), 405, "method-not-allowed")


def test_what_cannot_be_put_on_record_is_not_done(
    quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    ana = holder(quiet, "ana")
    job = ana.submit()

    def away(*_: object) -> int:
        raise NotReady("the database does not answer")

    monkeypatch.setattr(quiet.jobs.audit, "begin", away)
    answer = ana.ask("POST", f"/v1/jobs/{job}/cancel")
    problem(answer, 503, "not-ready")
    assert not quiet.jobs.get(job).cancel_requested


def test_what_was_cut_off_stays_on_record_without_an_answer(
    quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    ana, admin = holder(quiet, "ana"), holder(quiet, "carl", Scope.ADMIN)

    def away(*_: object) -> None:
        raise NotReady("the database does not answer")

    monkeypatch.setattr(quiet.jobs.audit, "end", away)
    ana.submit()
    (entry,) = entries(admin)
    assert (entry["owner"], entry["status"]) == ("ana", None)
