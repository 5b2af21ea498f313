"""Downloads that the store itself hands out: who is asked for what, and with which headers."""

import contextlib
import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from api.app import create_app
from api.client import ApiError, Client, ClientError, JobHandle
from api.main import running_services
from service.cluster.inline import InlineCluster
from service.jobstore import JobStore
from service.settings import Settings
from tests.factories import tiny_spec
from tests.s3_servers import ACCESS_KEY, BUCKET, SECRET_KEY, Proxy, proxy_of
from tests.serving import served
from workers.artifacts import open_store


@dataclass(frozen=True)
class Behind:
    """A service whose store has a public address, and a job of it."""

    url: str
    job: JobHandle
    public: Proxy

    def handle(self, client: Client) -> JobHandle:
        return JobHandle(client.connection, self.job.body)


@pytest.fixture(params=["moto", "seaweedfs"])
def behind(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    s3_credentials: None,
) -> Iterator[Behind]:
    endpoint = str(request.getfixturevalue(f"{request.param}_endpoint"))
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"))
    with contextlib.ExitStack() as stack:
        public = stack.enter_context(proxy_of(endpoint))
        options = f"endpoint={endpoint}&public_endpoint={public.endpoint}"
        store = open_store(f"s3://{BUCKET}/{secrets.token_hex(8)}?{options}")
        jobs = stack.enter_context(contextlib.closing(JobStore.open("sqlite://")))
        cluster = stack.enter_context(contextlib.closing(InlineCluster()))
        services = stack.enter_context(running_services(settings, jobs, store, cluster))
        address = stack.enter_context(served(create_app(services, settings)))
        client = stack.enter_context(Client(address))
        job = client.submit(tiny_spec(epochs=1).model_dump(mode="json")).wait(60)
        yield Behind(address.removeprefix("http://"), job, public)


def sha256(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_a_head_that_asks_for_a_redirect_is_answered_and_a_get_is_redirected(
    behind: Behind,
) -> None:
    """As download tools do it: HEAD first, then GET, at the same address."""
    weights = f"http://{behind.url}/v1/jobs/{behind.job.id}/checkpoints/latest/weights"
    grid = behind.job.artifacts()[0].links["content"]
    for address in (weights, f"http://{behind.url}{grid}"):
        asked = f"{address}?redirect=true"
        head = httpx2.head(asked, follow_redirects=True)
        plain = httpx2.head(address)
        assert head.status_code == 200
        for name in ("etag", "content-length", "content-type", "accept-ranges"):
            assert head.headers[name] == plain.headers[name]
        assert behind.public.requests == []
        redirected = httpx2.get(asked, follow_redirects=True)
        [(method, _, status)] = behind.public.requests
        assert (method, status) == ("GET", 200)
        assert len(redirected.content) == int(head.headers["content-length"])
        known = httpx2.head(asked, headers={"If-None-Match": head.headers["etag"]})
        assert known.status_code == 304
        behind.public.requests.clear()


def test_the_client_fetches_from_the_store_and_takes_no_credentials_there(
    behind: Behind, tmp_path: Path
) -> None:
    with Client(f"http://user:our-secret@{behind.url}") as client:
        client.connection._http.headers["Authorization"] = "Bearer our-secret"
        client.connection._http.cookies.set("session", "our-secret")
        job = behind.handle(client)
        weights = job.download_weights(tmp_path / "weights", redirect=True)
        grid = job.artifacts()[0]
        picture = job.download_artifact(grid.name, tmp_path / "grid.png", redirect=True)
    assert sha256(weights) == behind.job.checkpoints()[-1].digest
    assert sha256(picture) == grid.digest
    assert [(method, status) for method, _, status in behind.public.requests] == [("GET", 200)] * 2
    for headers in behind.public.headers:
        assert not {"authorization", "cookie", "proxy-authorization"} & set(headers)
        assert "our-secret" not in str(headers)
    assert SECRET_KEY not in str(behind.public.requests)
    assert ACCESS_KEY in behind.public.requests[0][1]  # the signature's, which is public
    assert sorted(tmp_path.iterdir()) == [picture, weights]


def test_without_the_option_nothing_goes_past_the_service(behind: Behind, tmp_path: Path) -> None:
    path = behind.job.download_weights(tmp_path / "weights")
    assert sha256(path) == behind.job.checkpoints()[-1].digest
    assert behind.public.requests == []


def test_what_the_store_damages_or_does_not_answer_is_an_error_that_leaves_no_file(
    behind: Behind, tmp_path: Path
) -> None:
    target = tmp_path / "weights"
    behind.public.bodies_to_cut = 1
    with pytest.raises(ClientError, match="without redirect") as caught:
        behind.job.download_weights(target, redirect=True)
    assert "Signature" not in str(caught.value)
    behind.public.close()
    with pytest.raises(ClientError, match=r"the store at 127\.0\.0\.1 failed.*without redirect"):
        behind.job.download_weights(target, redirect=True)
    with pytest.raises(ApiError, match="no checkpoint 'nope'"):
        behind.job.download_weights(target, "nope", redirect=True)
    assert list(tmp_path.iterdir()) == []
    assert sha256(behind.job.download_weights(target)) == behind.job.checkpoints()[-1].digest
