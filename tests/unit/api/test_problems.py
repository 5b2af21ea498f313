import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from api.errors import SERVICE_PROBLEMS, documented
from service import errors
from service.errors import ServiceError
from service.log_lines import facts
from tests.factories import request
from tests.unit.api.conftest import Quiet

JSON = {"Content-Type": "application/json"}


def problem(answer: httpx2.Response, status: int, kind: str) -> dict[str, Any]:
    """The problem in the answer, after checking what every problem must have."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"/problems/{kind}"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    assert "site-packages" not in answer.text
    return body


def classes_below(parent: type[ServiceError]) -> Iterator[type[ServiceError]]:
    yield parent
    for child in parent.__subclasses__():
        yield from classes_below(child)


def test_every_service_error_has_a_row_in_the_table() -> None:
    assert set(classes_below(ServiceError)) == set(SERVICE_PROBLEMS)


def test_no_two_rows_share_a_name() -> None:
    names = [kind.name for kind in SERVICE_PROBLEMS.values()]
    assert len(set(names)) == len(names)


def test_an_unknown_address_is_a_problem(quiet: Quiet) -> None:
    body = problem(quiet.http.get("/v1/nothing"), 404, "no-such-route")
    assert body["instance"] == "/v1/nothing"
    assert body["retryable"] is False


def test_a_path_with_a_slash_behind_it_is_another_address(quiet: Quiet) -> None:
    problem(quiet.http.get("/v1/jobs/", follow_redirects=False), 404, "no-such-route")


def test_a_wrong_method_is_a_problem_that_lists_the_right_ones(quiet: Quiet) -> None:
    for path, allowed in (
        ("/v1/jobs", {"GET", "HEAD", "POST"}),
        ("/v1/datasets/mine", {"GET", "HEAD", "PUT", "DELETE"}),
        ("/v1/jobs/job-1/cancel", {"POST"}),
        ("/docs", {"GET", "HEAD"}),
    ):
        answer = quiet.http.options(path)
        problem(answer, 405, "method-not-allowed")
        assert set(answer.headers["allow"].split(", ")) == allowed


def test_an_unknown_job_is_a_problem_everywhere(quiet: Quiet) -> None:
    for below in (
        *("", "/spec", "/events", "/metrics", "/checkpoints", "/checkpoints/latest/weights"),
        *("/samples", "/grids", "/filmstrip", "/artifacts", "/artifacts/a/b.png"),
    ):
        problem(quiet.http.get(f"/v1/jobs/job-none{below}"), 404, "job-not-found")
    problem(quiet.http.post("/v1/jobs/job-none/cancel"), 404, "job-not-found")
    problem(quiet.http.patch("/v1/jobs/job-none", json={"labels": {}}), 404, "job-not-found")
    answer = quiet.http.get("/v1/jobs/job-none/events", headers={"Accept": "text/event-stream"})
    problem(answer, 404, "job-not-found")


def test_a_name_with_nul_is_not_found(quiet: Quiet) -> None:
    problem(quiet.http.get("/v1/jobs/a%00b"), 404, "no-such-route")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"spec": ', "line 1"),
        (b'{"spec": \xff}', "UTF-8"),
        ('{"spec": 1}'.encode("utf-16"), "UTF-8"),
        (b'{"name": "a", "name": "b"}', "'name' comes more than once"),
        (b'{"\\ud800": 1, "\\ud800": 2}', "more than once"),
        (b"[" * 90_000, "nested too deeply"),
        (b'{"priority": ' + b"9" * 5000 + b"}", "too long"),
    ],
)
def test_what_is_not_json_is_a_malformed_body(quiet: Quiet, content: bytes, says: str) -> None:
    answer = quiet.http.post("/v1/jobs", content=content, headers=JSON)
    assert says in problem(answer, 400, "malformed-body")["detail"]


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"{}", "/spec"),
        (b"null", ""),
        (b"[]", ""),
        (b"3", ""),
        (b'"text"', ""),
        (b"", ""),
        (b'{"name": "\\ud800", "spec": {}}', "/name"),
        (b'{"name": "a\\u0000b", "spec": {}}', "/name"),
        (b'{"labels": {"a": "\\u0000"}, "spec": {}}', "/labels/a"),
        (b'{"labels": {"\\udfff": "a"}, "spec": {}}', "/labels/?"),
        (b'{"priority": NaN}', "/priority"),
        (b'{"priority": 1.5}', "/priority"),
        (b'{"priority": "1"}', "/priority"),
        (b'{"limits": {"max_wall_s": Infinity}}', "/limits/max_wall_s"),
        (b'{"limits": {"max_wall_s": 1e999}}', "/limits/max_wall_s"),
        (b'{"limits": {"max_wall_s": 0}}', "/limits/max_wall_s"),
        (
            b'{"spec": {"dataset": {"name": "digits"}, "trainer": {"kind": "delta_vae", '
            b'"spread": {"kind": "laplace", "scale": NaN}}}}',
            "/spec/trainer/spread/scale",
        ),
        (
            b'{"spec": {"dataset": {"name": "digits"}, "trainer": {"kind": "delta_vae", '
            b'"spread": {"kind": "laplace", "scale": 0}}}}',
            "/spec/trainer/spread/scale",
        ),
    ],
)
def test_a_wrong_body_is_a_problem_that_points_at_the_field(
    quiet: Quiet, content: bytes, where: str
) -> None:
    answer = quiet.http.post("/v1/jobs", content=content, headers=JSON)
    fields = problem(answer, 422, "invalid-body")["errors"]
    assert where in [field["pointer"] for field in fields]
    assert all(field["message"] for field in fields)


def test_an_integer_may_be_written_with_a_point(quiet: Quiet) -> None:
    body = request(priority=3).model_dump_json().replace('"priority":3', '"priority":3.0')
    answer = quiet.http.post("/v1/jobs", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["priority"]) == (201, 3)
    for text, where in (("3.5", "/priority"), ("9007199254740994.0", "/priority")):
        refused = quiet.http.post("/v1/jobs", content=f'{{"priority": {text}}}', headers=JSON)
        assert where in [e["pointer"] for e in problem(refused, 422, "invalid-body")["errors"]]


@pytest.mark.parametrize(
    ("change", "where", "kind"),
    [
        ({"dataset": {"name": "no-such-data"}}, "/spec/dataset/name", "invalid-spec"),
        (
            {"trainer": {"kind": "delta_vae", "batch_size": 60_000}},
            "/spec/trainer/batch_size",
            "invalid-spec",
        ),
        (
            {
                "dataset": {"kind": "ring"},
                "trainer": {
                    "kind": "delta_vae",
                    "network": {"kind": "mlp", "output": "sigmoid"},
                },
            },
            "/spec/trainer/network/output",
            "invalid-spec",
        ),
        (
            {"trainer": {"kind": "vae", "network": {"kind": "conv", "channels": [8] * 4}}},
            "/spec/trainer/network/channels",
            "invalid-spec",
        ),
        (
            {
                "dataset": {"kind": "ring"},
                "trainer": {"kind": "delta_vae", "network": {"kind": "conv"}},
            },
            "/spec/trainer/network/kind",
            "invalid-spec",
        ),
        (
            {"trainer": {"kind": "vae", "quality": {"features": ["resnet_50"]}}},
            "/spec/trainer/quality/features/0",
            "invalid-body",
        ),
        (
            {"trainer": {"kind": "vae", "quality": {"features": ["inception_v3_fid"]}}},
            "/spec/trainer/quality/features/0",
            "invalid-spec",
        ),
        ({"trainer": {"kind": "refit_encoder"}}, "/spec/trainer/kind", "invalid-spec"),
        (
            {"resources": {"cpus_per_worker": 999}},
            "/spec/resources/cpus_per_worker",
            "exceeds-capacity",
        ),
    ],
)
def test_a_spec_that_cannot_be_carried_out_is_a_problem_that_points_at_the_field(
    quiet: Quiet, change: dict[str, Any], where: str, kind: str
) -> None:
    spec = {"dataset": {"name": "digits"}, "trainer": {"kind": "delta_vae"}, **change}
    for params in ({}, {"dry_run": "true"}):
        answer = quiet.http.post("/v1/jobs", json={"spec": spec}, params=params)
        fields = problem(answer, 422, kind)["errors"]
        assert [field["pointer"] for field in fields] == [where]


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "x", ""])
def test_a_body_that_does_not_say_it_is_json_is_refused(quiet: Quiet, media_type: str) -> None:
    headers = {"Content-Type": media_type}
    answer = quiet.http.post("/v1/jobs", content=b'{"spec": {}}', headers=headers)
    problem(answer, 415, "unsupported-media-type")


def test_json_with_parameters_and_suffixes_is_json(quiet: Quiet) -> None:
    for media_type in ("application/json; charset=utf-8", "application/merge-patch+json"):
        answer = quiet.http.post("/v1/jobs", content=b"{}", headers={"Content-Type": media_type})
        problem(answer, 422, "invalid-body")


def test_a_body_that_is_too_large_is_refused_by_its_length(quiet: Quiet) -> None:
    content = json.dumps({"name": "x" * 200_000}).encode()
    answer = quiet.http.post("/v1/jobs", content=content, headers=JSON)
    detail = problem(answer, 413, "body-too-large")["detail"]
    assert "100,000 bytes" in detail
    assert "SPREADTRAIN_MAX_BODY_BYTES" in detail


def test_a_body_without_a_length_is_refused_when_it_grows_too_large(quiet: Quiet) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(200):
            yield b" " * 1000

    problem(quiet.http.post("/v1/jobs", content=pieces(), headers=JSON), 413, "body-too-large")


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("limit=0", "/query/limit"),
        ("limit=101", "/query/limit"),
        ("limit=x", "/query/limit"),
        ("state=asleep", "/query/state"),
        ("cursor=!!!", "/query/cursor"),
        ("sort=asc", "/query/sort"),
        ("label=a%00", "/query/label"),
    ],
)
def test_a_wrong_query_is_a_problem_that_names_the_parameter(
    quiet: Quiet, query: str, where: str
) -> None:
    fields = problem(quiet.http.get(f"/v1/jobs?{query}"), 422, "invalid-query")["errors"]
    assert [field["pointer"] for field in fields] == [where]


def test_a_misspelt_parameter_is_answered_with_the_one_that_is_meant(quiet: Quiet) -> None:
    answer = quiet.http.get("/v1/jobs?labell=a")
    assert "did you mean 'label'?" in problem(answer, 422, "invalid-query")["detail"]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/livez"), ("POST", "/v1/jobs/job-none/cancel")]
)
def test_parameters_are_checked_also_where_there_are_none(
    quiet: Quiet, method: str, path: str
) -> None:
    problem(quiet.http.request(method, f"{path}?x=1"), 422, "invalid-query")


def test_a_wrong_header_is_a_problem_that_names_it(quiet: Quiet) -> None:
    job = quiet.submit()
    answer = quiet.http.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": "x"})
    fields = problem(answer, 422, "invalid-header")["errors"]
    assert [field["pointer"] for field in fields] == ["/header/last-event-id"]


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "a b", "[::2]"])
def test_a_foreign_host_is_refused(quiet: Quiet, host: str) -> None:
    problem(quiet.http.get("/livez", headers={"Host": host}), 421, "foreign-host")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:80", "LOCALHOST"])
def test_a_name_of_loopback_is_served(quiet: Quiet, host: str) -> None:
    assert quiet.http.get("/livez", headers={"Host": host}).status_code == 200


def test_a_page_of_another_site_may_not_change_anything(quiet: Quiet) -> None:
    job = quiet.submit()
    path = f"/v1/jobs/{job}/cancel"
    for origin in ("https://evil.example", "null", "http://[", ""):
        answer = quiet.http.post(path, headers={"Origin": origin})
        problem(answer, 403, "cross-origin")
    assert not quiet.jobs.get(job).cancel_requested
    assert quiet.http.post(path, headers={"Origin": "http://localhost"}).status_code == 202


def test_the_name_of_a_request_is_kept_when_it_is_harmless(quiet: Quiet) -> None:
    given = quiet.http.get("/livez", headers={"X-Request-ID": "mine-1"})
    assert given.headers["x-request-id"] == "mine-1"
    for name in ("a b", "x" * 65, "<script>"):
        answer = quiet.http.get("/livez", headers={"X-Request-ID": name})
        assert answer.headers["x-request-id"] != name


def test_a_part_that_is_down_is_a_problem_to_come_back_to(quiet: Quiet) -> None:
    quiet.app.add_api_route("/down", _down)
    answer = quiet.http.get("/down")
    assert problem(answer, 503, "not-ready")["retryable"] is True
    assert int(answer.headers["retry-after"]) > 0


def _down() -> None:
    raise errors.NotReady("the database does not answer")


def test_what_was_not_foreseen_is_logged_and_leaves_no_trace_in_the_answer(
    quiet: Quiet, caplog: pytest.LogCaptureFixture
) -> None:
    quiet.app.add_api_route("/broken", _broken)
    with caplog.at_level(logging.ERROR, "api.errors"):
        answer = quiet.http.get("/broken", headers={"X-Request-ID": "find-me"})
    body = problem(answer, 500, "internal-error")
    assert "secret" not in answer.text
    assert "find-me" in body["detail"]
    assert "find-me" in caplog.text
    assert "ZeroDivisionError: secret" in caplog.text


def _broken() -> None:
    raise ZeroDivisionError("secret")


def test_an_installation_without_room_refuses_with_what_to_do(quiet: Quiet) -> None:
    quiet.app.add_api_route("/full", _full)
    assert "make room" in problem(quiet.http.get("/full"), 507, "out-of-storage")["detail"]


def _full() -> None:
    raise errors.OutOfStorage


def test_a_refused_objective_comes_with_the_metrics_that_would_be_valid(quiet: Quiet) -> None:
    quiet.app.add_api_route("/study", _depends)
    body = problem(quiet.http.get("/study"), 422, "objective-depends-on-tuned-parameter")
    assert body["metrics"] == ["kid_pca"]
    assert body["errors"] == [{"pointer": "/objective/metric", "message": "depends on it"}]


def _depends() -> None:
    wrong = errors.FieldError("/objective/metric", "depends on it")
    raise errors.DependentObjective("no", (wrong,), ("kid_pca",))


def test_kinds_that_share_a_status_are_documented_side_by_side() -> None:
    entry = documented(
        SERVICE_PROBLEMS[errors.InvalidSpec], SERVICE_PROBLEMS[errors.IdempotencyConflict]
    )[422]
    examples = entry["content"]["application/problem+json"]["examples"]
    assert set(examples) == {"invalid-spec", "idempotency-conflict"}


def test_a_service_on_an_ipv6_address_answers_to_it(quiet: Quiet) -> None:
    client = TestClient(quiet.app, base_url="http://[::1]")
    assert client.get("/livez").status_code == 200


class _Facts(logging.Handler):
    """Keeps what each line was about when it was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, dict[str, str]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.getMessage(), dict(facts())))


def test_log_lines_have_the_ids_of_their_request_and_job(quiet: Quiet) -> None:
    kept = _Facts()
    logger = logging.getLogger()
    before = logger.level
    logger.addHandler(kept)
    logger.setLevel(logging.INFO)
    try:
        job = quiet.submit()
        answer = quiet.http.post(f"/v1/jobs/{job}/cancel", headers={"X-Request-Id": "mine-1"})
        quiet.http.post("/v1/jobs/a%0Ab/cancel")
    finally:
        logger.removeHandler(kept)
        logger.setLevel(before)
    assert answer.headers["x-request-id"] == "mine-1"
    submitted = next(told for line, told in kept.lines if "is submitted" in line)
    assert submitted["job"] == job
    assert len(submitted["request"]) == 16
    (line, told) = next(found for found in kept.lines if found[1].get("request") == "mine-1")
    assert line.startswith("POST /v1/jobs/{job_id}/cancel: 202 after")
    assert told == {"request": "mine-1", "job": job}
    assert all("\n" not in line for line, _ in kept.lines)
