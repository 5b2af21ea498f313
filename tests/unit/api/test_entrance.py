"""Hostile web pages: what the header Host says, and from where a page asks."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from service.settings import Settings
from tests.unit.api.conftest import Quiet
from tests.unit.api.keyed import holder
from tests.unit.api.test_problems import problem

SAME = {"Host": "localhost:8000", "Origin": "http://localhost:8000"}


@contextlib.contextmanager
def at(quiet: Quiet, base_url: str, **changes: Any) -> Iterator[TestClient]:
    """The same services behind an application with other settings."""
    settings = Settings.checked(quiet.settings.model_dump() | changes)
    with TestClient(create_app(quiet.app.state.services, settings), base_url=base_url) as http:
        yield http


def test_a_service_is_asked_by_the_names_of_its_settings_alone(quiet: Quiet) -> None:
    with at(quiet, "http://train.example", allowed_hosts="train.example,other.example") as http:
        for host in ("train.example", "TRAIN.example:443", "other.example", "localhost"):
            assert http.get("/livez", headers={"Host": host}).status_code == 200
        for host in ("evil.example", "train.example.evil.example", "192.0.2.1"):
            answer = http.get("/livez", headers={"Host": host})
            found = problem(answer, 421, "foreign-host")
            assert "SPREADTRAIN_ALLOWED_HOSTS" in found["detail"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_where_it_listens_everywhere_an_address_is_a_name_and_a_rebound_name_is_none(
    quiet: Quiet, host: str
) -> None:
    holder(quiet, "ana")
    with at(quiet, "http://192.0.2.1", host=host) as http:
        for name in ("192.0.2.1:8000", "[2001:db8::1]:8000", "10.1.2.3"):
            assert http.get("/livez", headers={"Host": name}).status_code == 200
        for name in ("evil.example", "1.2.3.4.evil.example", "999.1.1.1", ""):
            problem(http.get("/livez", headers={"Host": name}), 421, "foreign-host")


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:3000",  # a page of another service of this machine
        "http://127.0.0.1:8000",
        "https://evil.example",
        "null",
        "http://[",
        "",
        "file://",
        "http://localhost:8000.evil.example",
        "http://localhost:99999",
    ],
)
def test_a_page_from_elsewhere_asks_for_nothing(quiet: Quiet, origin: str) -> None:
    job = quiet.submit()
    headers = {"Host": "localhost:8000", "Origin": origin}
    for method, path in (
        ("POST", f"/v1/jobs/{job}/cancel"),
        ("GET", f"/v1/jobs/{job}/events"),
        ("OPTIONS", "/v1/jobs"),
    ):
        answer = quiet.http.request(method, path, headers=headers)
        problem(answer, 403, "cross-origin")
        assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert not quiet.jobs.get(job).cancel_requested


def test_the_services_own_page_asks_as_it_likes(quiet: Quiet) -> None:
    job = quiet.submit()
    assert quiet.http.get(f"/v1/jobs/{job}", headers=SAME).status_code == 200
    assert quiet.http.post(f"/v1/jobs/{job}/pause", headers=SAME).status_code == 202
    behind_tls = {"Host": "localhost", "Origin": "https://localhost"}
    assert quiet.http.post(f"/v1/jobs/{job}/cancel", headers=behind_tls).status_code == 202


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_no_other_page_holds_an_answer_as_a_picture_or_a_script_but_it_may_link(
    quiet: Quiet, site: str
) -> None:
    path = f"/v1/jobs/{quiet.submit()}"
    embedded = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    problem(quiet.http.get(path, headers=embedded), 403, "cross-origin")
    followed = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}
    assert quiet.http.get(path, headers=followed).status_code == 200
    # A form of another page is a navigation, too.
    problem(quiet.http.post(f"{path}/cancel", headers=followed), 403, "cross-origin")
    own = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
    assert quiet.http.get(path, headers=own).status_code == 200


def test_no_answer_is_framed_guessed_at_or_lent_to_another_page(quiet: Quiet) -> None:
    for answer in (quiet.http.get("/livez"), quiet.http.get("/v1/nothing")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_a_page_has_no_key_even_if_it_is_of_this_origin(quiet: Quiet) -> None:
    """Browsers add no bearer token by themselves, as they do with cookies."""
    holder(quiet, "ana")
    problem(quiet.http.post("/v1/jobs", headers=SAME), 401, "key-needed")
