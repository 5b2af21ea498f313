"""A service as it stands in a network, and its secrets: where they might be, they are not."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from sqlalchemy import MetaData, create_engine, select

from api.client import Client, JobFailed
from service.access.keys import new_secret
from tests.e2e.processes import ServiceProcess, spec
from tests.postgres import PASSWORD, Postgres
from tests.s3_servers import BUCKET, CREDENTIALS, SECRET_KEY, client
from tests.unit.workers.uploading import COLOUR, archive, pictures

PREFIX = "e2e/secrets"


@pytest.fixture
def server() -> Iterator[Postgres]:
    """One that can be stopped."""
    server = Postgres(is_durable=True)
    yield server
    server.close()


def test_no_secret_is_in_any_log_event_error_figure_row_or_artifact(
    server: Postgres, seaweedfs_endpoint: str, tmp_path: Path
) -> None:
    file = tmp_path / "volume" / "admin-key"
    service = ServiceProcess(
        tmp_path / "data",
        None,
        **CREDENTIALS,
        SPREADTRAIN_CPUS="1",
        SPREADTRAIN_HOST="0.0.0.0",
        SPREADTRAIN_ADMIN_KEY_FILE=str(file),
        SPREADTRAIN_DATABASE_URL=server.url(),
        SPREADTRAIN_ARTIFACTS_URI=f"s3://{BUCKET}/{PREFIX}",
        SPREADTRAIN_S3_ENDPOINT=seaweedfs_endpoint,
    )
    with contextlib.closing(client(seaweedfs_endpoint)) as bare:
        try:
            admin, wrong = file.read_text().strip(), new_secret()
            secrets = {
                "the admin key": admin,
                "a wrong key": wrong,
                "the database's password": PASSWORD,
                "the storage's secret": SECRET_KEY,
                "Ray's token": _token(service),
            }
            places = dict(_used(service, admin, wrong, bare))
            places |= {f"object {key}": content for key, content in _objects(bare)}
            places["the rows of the database"] = _rows(server)
            server.stop()
            headers = {"Authorization": f"Bearer {admin}"}
            with httpx2.Client(base_url=service.url, headers=headers) as http:
                for path in ("/readyz", "/v1/jobs", "/v1/audit"):
                    answer = http.get(path)
                    assert answer.status_code == 503
                    places[f"{path} without a database"] = answer.content
            for pid in service.census():
                places[f"the command line of {pid}"] = _command_line(pid)
            for folder in (service.data_dir, *service.ray_folders()):
                places |= dict(_files(folder))
        finally:
            service.end()
        said = service.log.read_text()
    # The key that the first start has made is said by it, once and no more.
    assert said.count(admin) == 1
    assert re.search(rf"^The first admin key.*{re.escape(str(file))}.*: {admin}$", said, re.M)
    places["the service's output"] = said.replace(admin, "").encode()
    assert {"the rows of the database", "/metrics", "events"} <= places.keys()
    for what, secret in secrets.items():
        found = [place for place, content in places.items() if secret.encode() in content]
        assert not found, f"{what} is in {found}"


def _used(
    service: ServiceProcess, admin: str, wrong: str, bare: Any
) -> Iterator[tuple[str, bytes]]:
    """What a service answers that has trained, has failed, and was asked wrongly."""
    with Client(service.url, api_key=admin) as asking:
        job = asking.submit(spec(1)).wait(240)
        source = service.data_dir.parent / "ours"
        source.write_bytes(archive(pictures(COLOUR)))
        asking.upload("ours", source)
        for key, _ in list(_objects(bare)):
            if "/datasets/" in key:
                bare.delete_object(Bucket=BUCKET, Key=key)
        lost = dict(spec(1, dataset={"name": "ours"}))
        lost["trainer"] = {**lost["trainer"], "batch_size": 8}  # type: ignore[dict-item]
        broken = asking.submit(lost)
        with contextlib.suppress(JobFailed):
            broken.wait(240)
        assert asking.job(broken.id).state == "failed"
    with httpx2.Client(base_url=service.url) as http:
        for sent in ({}, {"Authorization": f"Bearer {wrong}"}):
            assert http.get("/v1/jobs", headers=sent).status_code == 401
        http.headers["Authorization"] = f"Bearer {admin}"
        yield "a wrong query", http.get("/v1/jobs", params={"key": wrong}).content
        yield "a wrong body", http.post("/v1/jobs", json={"key": wrong}).content
        for path in ("/livez", "/readyz", "/metrics", "/openapi.json", "/v1/audit", "/v1/jobs"):
            yield path, http.get(path).content
        for job_id in (job.id, broken.id):
            about = http.get(f"/v1/jobs/{job_id}")
            yield f"{job_id}", about.content
            for name, path in about.json()["links"].items():
                yield f"{name} of {job_id}", http.get(path).content
            lines = {"kind": ["log", "state", "metrics"]}
            stream = http.get(
                f"/v1/jobs/{job_id}/events", params=lines, headers={"Accept": "text/event-stream"}
            )
            assert "event: end" in stream.text
            yield "events", stream.content


def _objects(bare: Any) -> Iterator[tuple[str, bytes]]:
    """Every object of this test's."""
    pages = bare.get_paginator("list_objects_v2")
    for page in pages.paginate(Bucket=BUCKET, Prefix=PREFIX):
        for entry in page.get("Contents", []):
            found = bare.get_object(Bucket=BUCKET, Key=entry["Key"])
            yield entry["Key"], found["Body"].read()


def _rows(server: Postgres) -> bytes:
    """Everything that is in the database."""
    engine, tables = create_engine(server.url()), MetaData()
    with engine.connect() as connection:
        tables.reflect(connection)
        found = {
            table.name: [list(row) for row in connection.execute(select(table))]
            for table in tables.sorted_tables
        }
    engine.dispose()
    assert found["api_keys"]
    assert found["audit"]
    return json.dumps(found, default=str).encode()


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below a folder that can be read as one."""
    for path in folder.rglob("*"):
        if path.is_file():
            with contextlib.suppress(OSError):  # it is gone
                yield str(path), path.read_bytes()


def _token(service: ServiceProcess) -> str:
    """By which the processes of its Ray know one another."""
    host = psutil.Process(service.child("ray_host"))
    return host.environ()["RAY_AUTH_TOKEN"]


def _command_line(pid: int) -> bytes:
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(psutil.Process(pid).cmdline()).encode()
    return b""
