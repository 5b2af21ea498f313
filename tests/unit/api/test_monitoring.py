"""/metrics, and what Prometheus and Grafana are told to make of it."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.exc import OperationalError

from api.app import create_app
from service.errors import NotReady
from service.jobs import JobState, Reason
from service.jobstore.database import Database
from service.measures import STORAGE_ERRORS, STORAGE_OPERATIONS, Measures
from tests.unit.api.conftest import LOCAL, Quiet, Running

DEPLOY = Path(__file__).parents[3] / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "spreadtrain.json"
OF_THE_SCRAPE = {"job", "instance"}  # labels that Prometheus adds
Samples = dict[str, list[dict[str, str]]]  # the labels of each series, by the name of its metric


def samples_of(http: TestClient) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(http.get("/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(dict(sample.labels))
    return found


def value_of(http: TestClient, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(http.get("/metrics").text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    raise AssertionError(f"no {name} with {labels}")


@pytest.fixture(scope="session")
def samples(running: Running) -> Samples:
    """Of a service that has trained a job, and drawn samples."""
    answer = running.http.get(f"/v1/jobs/{running.trained}/samples?n=4&format=json")
    assert answer.status_code == 200, answer.text
    running.http.get(f"/v1/jobs/{running.trained}/samples?n=9&format=json")
    return samples_of(running.http)


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules())
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"].replace("$__rate_interval", "5m").replace("$job", ".*")


def selectors(node: Any) -> Iterator[Any]:
    """All vector selectors of a parsed expression."""
    match node:
        case promql_parser.VectorSelector():
            yield node
        case promql_parser.MatrixSelector():
            yield node.vector_selector
        case promql_parser.BinaryExpr():
            yield from selectors(node.lhs)
            yield from selectors(node.rhs)
        case promql_parser.Call():
            for argument in node.args:
                yield from selectors(argument)
        case promql_parser.AggregateExpr() | promql_parser.ParenExpr():
            yield from selectors(node.expr)
        case promql_parser.NumberLiteral() | promql_parser.StringLiteral():
            return
        case _:
            raise AssertionError(f"teach this test {type(node).__name__}")


def test_alerts_and_dashboard_name_series_that_a_real_service_shows(samples: Samples) -> None:
    for expression in expressions():
        for selector in selectors(promql_parser.parse(expression)):
            assert selector.name in samples, expression
            wanted = {matcher.name for matcher in selector.matchers.matchers} - OF_THE_SCRAPE
            assert all(wanted <= labels.keys() for labels in samples[selector.name]), expression


def test_what_the_database_says_is_never_added_up_over_processes() -> None:
    told_by_all = {"spreadtrain_jobs", "spreadtrain_unfinished_jobs"}
    told_by_all |= {"spreadtrain_oldest_queued_seconds", "spreadtrain_studies"}
    told_by_all |= {"spreadtrain_trials"}
    for expression in expressions():
        names = {selector.name for selector in selectors(promql_parser.parse(expression))}
        if names & told_by_all:
            assert expression.startswith("max"), expression
            assert expression.count('source="database"') == len(re.findall("max", expression))


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names)) > 10
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert re.fullmatch(r"\d+m", rule["for"])
        assert {"summary", "description"} == rule["annotations"].keys()


def test_the_dashboard_has_a_place_and_a_data_source_for_each_panel() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 20
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells
        assert max(x for x, _ in cells) < 24
        taken |= cells
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == "${datasource}"
    assert [v["name"] for v in dashboard["templating"]["list"]] == ["datasource", "job"]


def test_a_job_from_its_submission_to_its_samples_is_measured(
    running: Running, samples: Samples
) -> None:
    http = running.http
    assert value_of(http, "spreadtrain_submit_to_first_step_seconds_count", of="job") >= 1
    assert value_of(http, "spreadtrain_step_seconds_count", trainer="delta_vae") >= 1
    assert value_of(http, "spreadtrain_events_total", kind="checkpoint") >= 2
    assert value_of(http, "spreadtrain_event_delay_seconds_count") >= 1
    end = {"state": "succeeded", "reason": "completed"}
    assert value_of(http, "spreadtrain_job_changes_total", **end) >= 1
    assert value_of(http, "spreadtrain_attempts_ended_total", reason="completed") >= 1
    assert value_of(http, "spreadtrain_generator_requests_total", result="miss") >= 1
    assert value_of(http, "spreadtrain_generator_requests_total", result="hit") >= 1
    assert value_of(http, "spreadtrain_generator_cache_bytes") > 0
    assert value_of(http, "spreadtrain_storage_operation_seconds_count", operation="put") >= 0
    assert value_of(http, "spreadtrain_storage_operation_seconds_count", operation="stream") >= 1
    for kind in ("read", "write"):
        assert value_of(http, "spreadtrain_database_transaction_seconds_count", kind=kind) >= 1
    assert value_of(http, "spreadtrain_leads") == 1


def test_labels_come_from_closed_sets(samples: Samples) -> None:
    states, reasons = {str(s) for s in JobState}, {str(r) for r in Reason}
    closed = {
        "spreadtrain_job_changes_total": {"state": states, "reason": reasons},
        "spreadtrain_attempts_ended_total": {"reason": reasons},
        "spreadtrain_unfinished_jobs": {"state": states, "reason": reasons},
        "spreadtrain_storage_errors_total": {
            "operation": set(STORAGE_OPERATIONS),
            "error": set(STORAGE_ERRORS),
        },
        "spreadtrain_storage_operation_seconds_count": {"operation": set(STORAGE_OPERATIONS)},
    }
    for name, allowed in closed.items():
        for labels in samples.get(name, []):
            for label, values in allowed.items():
                assert labels[label] in values
    everything = json.dumps(samples)
    assert "job-" not in everything  # no id of anything
    assert "study-" not in everything


def test_unfinished_jobs_are_counted_by_state_and_reason(quiet: Quiet) -> None:
    waiting = [quiet.submit() for _ in range(3)]
    quiet.http.post(f"/v1/jobs/{waiting[0]}/pause")
    name = "spreadtrain_unfinished_jobs"
    queued = {"state": "queued", "reason": "submitted", "source": "database"}
    paused = {"state": "paused", "reason": "paused", "source": "database"}
    assert value_of(quiet.http, name, **queued) == 2
    assert value_of(quiet.http, name, **paused) == 1


def test_a_database_that_is_away_is_a_figure_and_hides_no_other(
    quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert value_of(quiet.http, "spreadtrain_database_up") == 1

    def away(*_: object) -> None:
        raise OperationalError("SELECT 1", {}, Exception("connection refused"))

    monkeypatch.setattr(Database, "_begin", away)
    assert value_of(quiet.http, "spreadtrain_database_up") == 0
    found = samples_of(quiet.http)
    assert not {"spreadtrain_jobs", "spreadtrain_studies"} & found.keys()
    assert "spreadtrain_watcher_silence_seconds" in found
    assert quiet.http.get("/metrics").status_code == 200


def test_failures_of_the_database_are_told_apart() -> None:
    seen: list[tuple[str, str | None]] = []
    database = Database.open("sqlite://", lambda kind, _, error: seen.append((kind, error)))
    with database.read():
        pass
    with pytest.raises(NotReady), database.write():
        raise OperationalError("UPDATE", {}, Exception("gone"))
    with pytest.raises(ValueError, match="ours"), database.write():
        raise ValueError("ours")
    database.close()
    assert seen == [("read", None), ("write", "unavailable"), ("write", None)]


def test_two_services_say_the_same_of_their_database_and_count_their_own_work(
    quiet: Quiet,
) -> None:
    beside = replace(quiet.app.state.services, measures=Measures())
    with TestClient(create_app(beside, quiet.settings), base_url=LOCAL) as other:
        quiet.submit()
        beside.measures.progress.moved(JobState.FAILED, Reason.DIVERGED)
        for http in (quiet.http, other):
            jobs = {"state": "queued", "source": "database"}
            assert value_of(http, "spreadtrain_jobs", **jobs) == 1
        failed = {"state": "failed", "reason": "diverged"}
        assert value_of(other, "spreadtrain_job_changes_total", **failed) == 1
        assert value_of(quiet.http, "spreadtrain_job_changes_total", **failed) == 0
