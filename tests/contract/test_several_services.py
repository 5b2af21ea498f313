"""Two whole services on one PostgreSQL: what each answers, and what the leader alone does."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.main import running_services
from service.cluster.inline import InlineCluster
from service.jobstore import JobStore
from service.settings import Settings
from tests.factories import request
from workers.artifacts import LocalStore

LOCAL = "http://localhost"


class Service:
    """A service that is stopped by itself."""

    def __init__(self, name: str, url: str, folder: Path, artifacts: LocalStore) -> None:
        settings = Settings(data_dir=folder / name, database_url=url, lease_s=600)
        with contextlib.ExitStack() as stack:
            jobs = stack.enter_context(contextlib.closing(JobStore.open(url)))
            cluster = stack.enter_context(contextlib.closing(InlineCluster()))
            services = stack.enter_context(
                running_services(settings, jobs, artifacts, cluster, name)
            )
            app = create_app(services, settings)
            self.http = stack.enter_context(TestClient(app, base_url=LOCAL))
            self.stop = stack.pop_all().close

    def leader(self) -> str:
        parts = self.http.get("/readyz").json()["parts"]
        (detail,) = (str(part["detail"]) for part in parts if part["name"] == "leader")
        return detail

    def submit(self) -> str:
        body = request().model_dump(mode="json", exclude_unset=True)
        answer = self.http.post("/v1/jobs", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def events(self, job_id: str) -> str:
        """The whole stream of a job's events, to its end."""
        headers = {"Accept": "text/event-stream"}
        return self.http.get(f"/v1/jobs/{job_id}/events", headers=headers).text


@pytest.fixture
def pair(
    postgres_url: str, tmp_path: Path, artifacts: LocalStore
) -> Iterator[tuple[Service, Service]]:
    """The leader, and who follows."""
    with contextlib.ExitStack() as stack:
        services = []
        for name in ("one", "two"):
            services.append(Service(name, postgres_url, tmp_path, artifacts))
            stack.callback(services[-1].stop)
        yield services[0], services[1]


def until(condition: Callable[[], Any]) -> None:
    give_up_at = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def test_each_says_who_leads(pair: tuple[Service, Service]) -> None:
    leader, other = pair
    assert leader.leader().startswith("this service leads")
    assert other.leader().startswith("one leads")
    assert other.http.get("/readyz").status_code == 200


def test_a_job_that_is_sent_to_who_follows_is_run_by_the_leader_and_followed_there(
    pair: tuple[Service, Service],
) -> None:
    _, other = pair
    job_id = other.submit()
    assert '"state":"succeeded"' in other.events(job_id)
    job = other.http.get(f"/v1/jobs/{job_id}").json()
    assert [attempt["reason"] for attempt in job["attempts"]] == ["completed"]


def test_a_job_that_is_deleted_by_who_follows_is_removed_by_the_leader(
    pair: tuple[Service, Service], postgres_url: str, artifacts: LocalStore
) -> None:
    _, other = pair
    job_id = other.submit()
    other.events(job_id)
    assert other.http.delete(f"/v1/jobs/{job_id}").status_code == 204
    with contextlib.closing(JobStore.open(postgres_url)) as jobs:
        until(lambda: jobs.custody(job_id) is None)
    assert list(artifacts.list(f"jobs/{job_id}")) == []


def test_who_follows_does_not_sweep_and_says_whom_to_ask(pair: tuple[Service, Service]) -> None:
    leader, other = pair
    refused = other.http.post("/v1/sweep?dry_run=true")
    assert refused.status_code == 503
    assert "/readyz says which" in refused.json()["detail"]
    assert leader.http.post("/v1/sweep?dry_run=true").status_code == 202


def test_the_other_leads_when_the_leader_has_stopped(pair: tuple[Service, Service]) -> None:
    leader, other = pair
    leader.stop()
    until(lambda: other.leader().startswith("this service leads"))
    assert '"state":"succeeded"' in other.events(other.submit())
