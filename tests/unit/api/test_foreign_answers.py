"""What answers at the client's address may be something else than the service."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.bodies import JobBody
from api.cli import app
from api.client import ApiError, Client, ClientError, JobHandle
from api.client.connection import Connection
from tests.unit.api.conftest import Running

LOGIN = (200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>Sign in</html>")
MOVED = (308, {"Location": "https://elsewhere.example:8443/v1/jobs?token=secret"}, b"")
OTHER = (200, {"Content-Type": "application/json"}, b'{"hello": "you"}')
Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """The address of a server that answers everything alike."""
    status, headers, content = answer

    class Alike(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_POST = do_PUT = do_DELETE = do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Alike)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def body(running: Running) -> JobBody:
    return JobBody.model_validate(running.http.get(f"/v1/jobs/{running.trained}").json())


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (LOGIN, r"what answers at http://127\.0\.0\.1:\d+ is not this version of spreadtrain"),
        (OTHER, r"not this version of spreadtrain"),
        (MOVED, r"answered 308 to https://elsewhere\.example:8443; use that address"),
        ((302, {"Location": "/login"}, b""), "answered 302 to another page of the same host"),
        ((302, {}, b""), "not this version of spreadtrain"),
    ],
)
def test_what_is_no_answer_of_the_service_is_one_error(
    answer: Answer, says: str, body: JobBody, tmp_path: Path
) -> None:
    (tmp_path / "data.csv").write_text("1,2\n")
    with answering(answer) as url, Client(url) as client:
        job = JobHandle(client.connection, body)
        asked: list[Callable[[], object]] = [
            client.datasets,
            lambda: client.submit(body.spec),
            lambda: client.delete_dataset("a"),
            lambda: client.upload("a", tmp_path / "data.csv", replace=True),
            client.ready,
            job.refresh,
            job.cancel,
            job.delete,
            lambda: list(job.watch()),
            lambda: list(job.logs()),
        ]
        for ask in asked:
            with pytest.raises(ClientError, match=says):
                ask()
        if answer is not OTHER:
            with pytest.raises(ClientError, match=says):
                job.samples_png()
            for redirect in (False, True):
                with pytest.raises(ClientError, match=says):
                    job.download_weights(tmp_path / "weights", redirect=redirect)
        with pytest.raises(ClientError):
            job.samples()
        result = CliRunner(env={"SPREADTRAIN_URL": url}).invoke(app, ("delete-dataset", "a"))
        assert (result.exit_code, result.stdout) == (1, "")
    assert [file.name for file in tmp_path.iterdir()] == ["data.csv"]


def test_a_refusal_of_a_proxy_says_its_status_and_when_to_come_again() -> None:
    with answering((503, {"Retry-After": "7"}, b"<html>busy</html>")) as url:
        connection = Connection(url, 10, None)
        with pytest.raises(ApiError, match="status 503") as caught:
            connection.request("GET", "/v1/jobs")
        connection.close()
    assert (caught.value.problem.retryable, caught.value.retry_after_s) == (True, 7.0)
    assert "busy" not in json.dumps(caught.value.problem.model_dump())
