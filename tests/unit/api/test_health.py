import shutil
import threading
from concurrent.futures import thread as pools

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service import health
from service.errors import NotReady
from tests.unit.api.conftest import Quiet, Running


def figures(text: str) -> dict[tuple[str, frozenset[str]], float]:
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_process_that_answers_is_alive(quiet: Quiet) -> None:
    assert quiet.http.get("/livez").json() == {"alive": True}


def test_a_working_service_is_ready_part_by_part(running: Running) -> None:
    answer = running.http.get("/readyz")
    assert answer.status_code == 200
    body = answer.json()
    assert body["ready"] is True
    assert {"database", "storage", "ray", "watcher"} <= {part["name"] for part in body["parts"]}
    assert all(part["ready"] for part in body["parts"])
    storage = next(part["detail"] for part in body["parts"] if part["name"] == "storage")
    assert storage.startswith("can: range, multipart, list, conditional put")


def test_a_part_that_fails_is_named(quiet: Quiet) -> None:
    shutil.rmtree(quiet.artifacts.root)
    quiet.artifacts.root.write_text("a file where the folder was")
    answer = quiet.http.get("/readyz")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    body = answer.json()
    assert body["ready"] is False
    states = {part["name"]: part["ready"] for part in body["parts"]}
    assert states["storage"] is False
    assert states["database"] is True
    assert quiet.http.get("/livez").status_code == 200


def test_a_database_that_is_away_is_named_as_any_part(
    quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise NotReady("the database does not answer")

    for question in ("ping", "oldest_queued_at"):
        monkeypatch.setattr(quiet.jobs, question, away)
    answer = quiet.http.get("/readyz")
    assert answer.status_code == 503
    states = {part["name"]: part["ready"] for part in answer.json()["parts"]}
    assert (states["database"], states["queue"], states["storage"]) == (False, False, True)


def test_a_silent_store_is_probed_by_one_thread_and_is_what_is_blamed(
    quiet: Quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on an endpoint that takes connections and says nothing: the watcher waits for it too."""
    answers, probes = threading.Event(), []

    def check() -> None:
        probes.append(threading.current_thread())
        answers.wait(30)

    monkeypatch.setattr(quiet.artifacts, "check", check)
    monkeypatch.setattr(health, "PROBE_PATIENCE_S", 0.01)
    monkeypatch.setattr(health, "PROBE_INTERVAL_S", 0.0)
    monkeypatch.setattr(health, "WATCHER_SILENCE_S", -1.0)
    for _ in range(5):
        answer = quiet.http.get("/readyz")
        assert answer.status_code == 503
        parts = {part["name"]: part for part in answer.json()["parts"]}
        assert not parts["storage"]["ready"]
        assert "has not answered" in parts["storage"]["detail"]
        assert parts["watcher"]["ready"]
        assert "storage" in parts["watcher"]["detail"]
    assert len(probes) == 1
    # A process that ends does not wait for it, as it does for any pool's threads.
    assert probes[0].daemon
    assert probes[0] not in pools._threads_queues
    answers.set()
    monkeypatch.setattr(health, "PROBE_PATIENCE_S", 30.0)
    parts = {part["name"]: part for part in quiet.http.get("/readyz").json()["parts"]}
    assert parts["storage"]["ready"]
    assert not parts["watcher"]["ready"]


def test_figures_count_jobs_and_requests_by_route(quiet: Quiet) -> None:
    job = quiet.submit()
    for _ in range(3):
        quiet.http.get(f"/v1/jobs/{job}")
    quiet.http.get("/v1/jobs/job-none")
    quiet.http.get("/v1/nothing/at/all")
    answer = quiet.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    found = figures(answer.text)
    requests = "spreadtrain_http_requests_total"
    assert found[(requests, frozenset({"GET", "/v1/jobs/{job_id}", "200"}))] == 3
    assert found[(requests, frozenset({"GET", "/v1/jobs/{job_id}", "404"}))] == 1
    assert found[(requests, frozenset({"POST", "/v1/jobs", "201"}))] == 1
    assert found[(requests, frozenset({"GET", "none", "404"}))] == 1
    started = "spreadtrain_http_response_start_seconds_count"
    assert found[(started, frozenset({"GET", "/v1/jobs/{job_id}"}))] == 4
    assert found[("spreadtrain_jobs", frozenset({"queued", "database"}))] == 1
    assert found[("spreadtrain_oldest_queued_seconds", frozenset({"database"}))] > 0
    assert found[("spreadtrain_event_followers", frozenset())] == 0
    assert job not in answer.text


def test_trainers_are_listed_with_schemas_of_their_specs(quiet: Quiet) -> None:
    trainers = quiet.http.get("/v1/trainers").json()["trainers"]
    assert {"delta_vae", "vae"} <= {trainer["name"] for trainer in trainers}
    for trainer in trainers:
        schema = quiet.http.get(trainer["links"]["schema"]).json()
        assert schema["$defs"]
    unknown = quiet.http.get("/v1/trainers/gan/schema")
    assert unknown.status_code == 404
    assert unknown.json()["type"] == "/problems/unknown-trainer"


def test_data_sets_are_listed_with_what_to_do_about_missing_ones(quiet: Quiet) -> None:
    found = {d["name"]: d for d in quiet.http.get("/v1/datasets").json()["datasets"]}
    assert {"mnist-10k", "digits", "fashion-mnist", "ring", "surface"} <= set(found)
    assert found["mnist-10k"]["available"] is True
    assert found["mnist-10k"]["shape"] == [28, 28]
    assert found["mnist-10k"]["count"] == 10_000


def test_invented_methods_do_not_fill_the_figures(quiet: Quiet) -> None:
    for number in range(20):
        quiet.http.request(f"INVENTED{number}", "/livez")
    text = quiet.http.get("/metrics").text
    assert "INVENTED" not in text
    assert 'method="other"' in text
