"""One trace from the request to the training, as OpenTelemetry's SDK writes it."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from api.app import create_app
from api.main import running_services
from service.cluster.inline import InlineCluster
from service.errors import ConfigurationError
from service.jobstore import JobStore
from service.settings import Settings
from service.tracing import OFF, tracing_of
from tests.factories import request
from tests.spans import only, spans_in
from tests.unit.api.conftest import LOCAL
from workers import tracing
from workers.artifacts import LocalStore
from workers.tracing import attempt_span, opening, stage

CALLERS = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{CALLERS}-00f067aa0ba902b7-01"


@contextlib.contextmanager
def serving(settings: Settings) -> Iterator[TestClient]:
    """A service at work with these settings, seen from inside the process."""
    jobs, store = JobStore.open("sqlite://"), LocalStore(settings.data_dir / "artifacts")
    with (
        contextlib.closing(tracing_of(settings)) as traced,
        contextlib.closing(jobs),
        contextlib.closing(InlineCluster()) as cluster,
        running_services(settings, jobs, store, cluster, tracing=traced) as services,
        TestClient(create_app(services, settings), base_url=LOCAL) as http,
    ):
        yield http


def test_a_request_its_job_and_its_training_are_one_trace(tmp_path: Path) -> None:
    folder = tmp_path / "spans"
    with serving(Settings(data_dir=tmp_path, tracing=folder.as_uri())) as http:
        body = request().model_dump(mode="json")
        headers = {"traceparent": TRACEPARENT, "X-Request-Id": "mine"}
        job = http.post("/v1/jobs", json=body, headers=headers).json()["id"]
        events = http.get(f"/v1/jobs/{job}/events", headers={"Accept": "text/event-stream"}).text
        assert '"state":"succeeded"' in events
        http.get("/v1/jobs/job-none")
        http.get("/metrics")
    found = spans_in(folder)
    submitted = only(found, "POST /v1/jobs")
    assert (submitted.trace, submitted.parent) == (CALLERS, "00f067aa0ba902b7")
    assert submitted.attributes["http.response.status_code"] == 201
    assert submitted.attributes["spreadtrain.request"] == "mine"
    started, attempt = only(found, "start attempt"), only(found, "attempt")
    for name, parent in (
        ("start attempt", submitted),
        ("attempt", started),
        ("prepare", attempt),
        ("train", attempt),
    ):
        span = only(found, name)
        assert (span.trace, span.parent) == (CALLERS, parent.id), name
        assert span.status != "ERROR"
    assert attempt.attributes["spreadtrain.job"] == job
    assert attempt.attributes["spreadtrain.reason"] == "completed"
    assert attempt.role == "worker"
    alone = only(found, "GET /v1/jobs/{job_id}")
    assert alone.parent is None
    assert alone.trace != CALLERS
    assert not any("metrics" in span.name for span in found)


def test_spans_go_to_a_collector(tmp_path: Path) -> None:
    received: list[ExportTraceServiceRequest] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/base/v1/traces"
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        location = f"http://127.0.0.1:{server.server_port}/base/"
        with attempt_span(location, TRACEPARENT, "job-1", 2, 0), stage("train"):
            pass
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    spans = [
        span
        for request_ in received
        for resource in request_.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert sorted(span.name for span in spans) == ["attempt", "train"]
    assert {span.trace_id.hex() for span in spans} == {CALLERS}


def test_an_attempt_that_cannot_be_traced_runs_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with attempt_span(in_the_way.as_uri(), TRACEPARENT, "job-1", 1, 0) as span:
        assert span.traceparent is None
    monkeypatch.setitem(sys.modules, "workers.tracing.exporting", None)  # as without the SDK
    with attempt_span("http://127.0.0.1:1", None, "job-1", 1, 0), stage("train"):
        pass
    told = [record.getMessage() for record in caplog.records if record.name == opening.__name__]
    assert "cannot be written" in told[0]
    assert "spreadtrain[tracing]" in told[1]
    with pytest.raises(ConfigurationError, match=r"SPREADTRAIN_TRACING.*spreadtrain\[tracing\]"):
        tracing_of(Settings(tracing="http://127.0.0.1:4318"))


def test_a_traceparent_that_is_none_begins_a_trace(tmp_path: Path) -> None:
    for given in (
        "",
        "nonsense",
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
        "ff" + TRACEPARENT[2:],
    ):
        traced = tracing.open_tracing((tmp_path / "spans").as_uri(), "test")
        with contextlib.closing(traced), traced.span("x", given) as span:
            assert tracing.trace_id(span.traceparent) not in (None, CALLERS)
            assert traced.current() == span.traceparent
        assert traced.current() is None


def test_it_is_off_unless_asked_for() -> None:
    assert tracing_of(Settings()) is OFF
    with OFF.span("x", TRACEPARENT) as span:
        span.set(a=1)
        span.rename("y")
        span.failed("z")
        assert span.traceparent is None
    assert OFF.current() is None
    code = "import sys, workers.tracing; print([m for m in sys.modules if 'telemetry.sdk' in m])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("collector:4318", "neither"),
        ("file://", "neither"),
        ("grpc://collector:4317", "neither"),
        ("http://user:secret@collector:4318", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("https://collector/?key=secret", "OTEL_EXPORTER_OTLP_HEADERS"),
    ],
)
def test_a_place_that_is_none_is_refused(location: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        Settings.from_environment({"SPREADTRAIN_TRACING": location})
