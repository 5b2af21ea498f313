"""What goes wrong with object storage: each thing is said, in time, and nothing half done shows."""

import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from botocore.config import Config

from service.cluster.inline import InlineCluster
from service.drawings import SampleRequest
from service.jobs import FINAL_STATES
from service.jobstore import JobStore
from service.preparing import try_out
from service.results import Results
from service.sampling import Sampling
from tests import factories
from tests.harness import make_service
from tests.s3_servers import BUCKET, SECRET_KEY, Proxy, client, free_ports, proxy_of
from workers import ledger
from workers.artifacts import ArtifactStore, open_store
from workers.artifacts.s3 import client as s3_client
from workers.artifacts.s3.uploads import PART_BYTES
from workers.errors import ArtifactExists, ArtifactNotFound, StoreAway, StoreError

pytestmark = pytest.mark.usefixtures("s3_credentials")
LARGE = 3 * PART_BYTES


def at(endpoint: str, bucket: str = BUCKET) -> ArtifactStore:
    return open_store(f"s3://{bucket}/{secrets.token_hex(8)}?endpoint={endpoint}")


def large_file(folder: Path) -> tuple[Path, bytes]:
    content = os.urandom(LARGE)
    path = folder / "large"
    path.write_bytes(content)
    return path, content


def trouble_of(store: ArtifactStore) -> str:
    """What the store's check says; putting and reading say the same."""
    with pytest.raises(StoreError) as caught:
        store.check()
    with pytest.raises(StoreError):
        store.put("k", b"x")
    with pytest.raises(StoreError) as read:
        store.get("k")
    assert not isinstance(read.value, ArtifactNotFound)
    assert SECRET_KEY not in str(caught.value)
    return str(caught.value)


def test_a_wrong_secret_is_named(seaweedfs_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    trouble = trouble_of(at(seaweedfs_endpoint))
    assert "does not accept this node's credentials (SignatureDoesNotMatch)" in trouble
    assert "AWS_SECRET_ACCESS_KEY" in trouble
    assert "not-the-secret" not in trouble


def test_an_unknown_key_is_named(seaweedfs_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    assert "(InvalidAccessKeyId)" in trouble_of(at(seaweedfs_endpoint))


def test_missing_credentials_are_named(
    seaweedfs_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "no usable S3 credentials on this node" in trouble_of(at(seaweedfs_endpoint))


def test_an_unreachable_endpoint_is_named() -> None:
    endpoint = f"http://127.0.0.1:{free_ports(1)[0]}"
    trouble = trouble_of(at(endpoint))
    assert f"{endpoint} cannot be reached" in trouble
    assert "SPREADTRAIN_S3_ENDPOINT" in trouble


@pytest.mark.parametrize("server", ["seaweedfs_endpoint", "moto_endpoint"])
def test_a_missing_bucket_is_named_and_not_made(
    server: str, request: pytest.FixtureRequest
) -> None:
    endpoint: str = request.getfixturevalue(server)
    with pytest.raises(StoreError, match=r"no bucket not-there at http.*; create it"):
        at(endpoint, "not-there").check()
    buckets = client(endpoint).list_buckets()["Buckets"]
    assert "not-there" not in {bucket["Name"] for bucket in buckets}


def test_an_endpoint_that_speaks_no_tls_is_named(moto_endpoint: str) -> None:
    with pytest.raises(StoreError, match="the right one of http and https"):
        at(moto_endpoint.replace("http:", "https:")).check()


def test_a_server_that_takes_connections_and_is_silent_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(s3_client, "PROMPT_TIMEOUT_S", 0.1)
    monkeypatch.setattr(s3_client, "ATTEMPTS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = at(f"http://127.0.0.1:{silent.getsockname()[1]}")
        requests: list[Callable[[], object]] = [
            store.check,
            lambda: store.get("k"),
            lambda: store.exists("k"),
            lambda: store.put("k", b"x"),
            lambda: store.delete("k"),
        ]
        for request in requests:
            with pytest.raises(StoreAway, match="does not answer in time"):
                request()


# --- what is tried out at the start -------------------------------------------------------------


@pytest.mark.parametrize("is_limited", [False, True])
def test_the_start_tries_out_what_the_server_can_do_and_says_it(
    is_limited: bool, moto_proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    moto_proxy.is_limited = is_limited
    store = at(moto_proxy.endpoint)
    with caplog.at_level(logging.INFO, "service.preparing"):
        try_out(store)
    said = [record.message for record in caplog.records if record.name == "service.preparing"]
    assert said == [f"the artifact store {store.capabilities().sentence()}"]
    tried = {
        path.partition("?")[0].rpartition("/")[2]
        for _, path, _ in moto_proxy.requests
        if "/probes/" in path
    }
    assert tried >= {"range", "multipart", "list", "conditional_put", "batch_delete", "checksums"}
    assert len(moto_proxy.requests) <= 30
    moto_proxy.requests.clear()
    store.capabilities()
    assert moto_proxy.requests == []  # it is known from here on
    store.put("k", b"x")
    assert not [path for _, path, _ in moto_proxy.requests if "/probes/" in path]


# --- answers that are lost ------------------------------------------------------------------------


def test_an_answer_that_is_lost_after_the_write_is_no_foreign_writer(moto_proxy: Proxy) -> None:
    store = at(moto_proxy.endpoint)
    store.put("before", b"x")
    moto_proxy.loses_first_answers = True
    store.put("k", b"mine")
    puts = [r for r in moto_proxy.requests if r[0] == "PUT" and r[1].endswith("/k")]
    assert [status for _, _, status in puts] == [200, 412]
    assert store.get("k") == b"mine"
    with pytest.raises(ArtifactExists):
        store.put("k", b"somebody else's")


def test_the_end_of_an_upload_in_parts_may_be_lost_too(moto_proxy: Proxy, tmp_path: Path) -> None:
    store = at(moto_proxy.endpoint)
    store.capabilities()
    path, content = large_file(tmp_path)
    moto_proxy.loses_first_answers = True
    store.put_file("k", path)
    ends = [r for r in moto_proxy.requests if r[0] == "POST" and "/k?uploadId=" in r[1]]
    assert len(ends) == 2
    assert ends[0][2] == 200
    assert store.get("k") == content


def test_a_stream_that_breaks_off_goes_on_where_it_was(moto_proxy: Proxy, tmp_path: Path) -> None:
    store = at(moto_proxy.endpoint)
    store.capabilities()
    path, content = large_file(tmp_path)
    store.put_file("k", path)
    for start, stop in ((0, None), (1000, None), (1000, LARGE - 1000)):
        moto_proxy.bodies_to_cut = 5
        assert b"".join(store.stream("k", start, stop)) == content[start:stop]
        assert moto_proxy.bodies_to_cut == 0
    moto_proxy.bodies_to_cut = 4
    with store.open_file("k") as fetched:
        assert fetched.read_bytes() == content


def test_a_stream_that_never_gets_on_ends_with_an_error(moto_endpoint: str) -> None:
    with proxy_of(moto_endpoint) as proxy:
        store = at(proxy.endpoint)
        store.put("k", os.urandom(64 << 20))
        proxy.bodies_to_cut = 1
        pieces = store.stream("k")
        next(pieces)
    with pytest.raises(StoreError, match="cannot be reached"):
        list(pieces)


# --- uploads that are interrupted -----------------------------------------------------------------


def test_an_upload_that_fails_half_way_leaves_nothing(moto_proxy: Proxy, tmp_path: Path) -> None:
    store = at(moto_proxy.endpoint)
    path, content = large_file(tmp_path)
    moto_proxy.refused_part = 2
    with pytest.raises(StoreError, match="InvalidPart"):
        store.put_file("j/k", path)
    assert not store.exists("j/k")
    assert list(store.list("j")) == []
    uploads = client(moto_proxy.endpoint).list_multipart_uploads(Bucket=BUCKET)
    assert [upload for upload in uploads.get("Uploads", []) if upload["Key"].endswith("/j/k")] == []
    moto_proxy.refused_part = 0
    store.put_file("j/k", path)
    assert store.get("j/k") == content


def test_a_killed_upload_leaves_nothing_that_looks_complete(
    seaweedfs_endpoint: str, tmp_path: Path
) -> None:
    """As if the process had died between the last part and the end."""
    store = at(seaweedfs_endpoint)
    bare = client(seaweedfs_endpoint)
    name = f"{store.uri.removeprefix(f's3://{BUCKET}/').partition('?')[0]}/j/k"
    target = {"Bucket": BUCKET, "Key": name}
    upload = bare.create_multipart_upload(**target)["UploadId"]
    bare.upload_part(**target, UploadId=upload, PartNumber=1, Body=b"x" * (5 << 20))
    assert not store.exists("j/k")
    assert list(store.list("j")) == []
    path, content = large_file(tmp_path)
    store.put_file("j/k", path)
    assert store.get("j/k") == content
    bare.abort_multipart_upload(**target, UploadId=upload)


def test_a_server_that_loses_access_later_is_an_error_of_every_call(
    seaweedfs_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path, _ = large_file(tmp_path)
    uri = at(seaweedfs_endpoint).uri
    open_store(uri).put("k", b"x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "revoked")
    store = open_store(uri)
    calls = (
        lambda: store.put("k", b"x"),
        lambda: store.put_file("l", path),
        lambda: store.get("k"),
        lambda: store.size("k"),
        lambda: list(store.list("j")),
        lambda: store.delete("k"),
        lambda: store.delete_many(["k", "l"]),
        lambda: store.capabilities(),
    )
    for call in calls:
        with pytest.raises(StoreError) as caught:
            call()
        assert not isinstance(caught.value, ArtifactNotFound | ArtifactExists)


# --- what a job says of it ------------------------------------------------------------------------


def test_a_job_whose_node_has_the_wrong_credentials_ends_and_says_so(
    seaweedfs_endpoint: str, jobs: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = at(seaweedfs_endpoint)
    store.check()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-another-node")
    monkeypatch.setattr("workers.logs.attempt.CLOSE_PATIENCE_S", 0.2)
    with contextlib.closing(InlineCluster()) as cluster:
        service = make_service(jobs, store, tmp_path, cluster)
        job = service.run_to_end(service.submit(factories.request(limits={"max_attempts": 1})))
    assert (job.state, job.reason) == ("failed", "store_unreachable"), job.message
    assert "does not accept this node's credentials" in job.message
    assert "of-another-node" not in job.message


@pytest.fixture
def silent_endpoint() -> Iterator[str]:
    """It takes every connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("no bucket", "there is no bucket not-there"),
        ("nobody", "cannot be reached"),
        ("silence", "does not answer in time"),
    ],
)
def test_a_job_whose_node_does_not_reach_the_store_ends_and_says_why(
    where: str,
    sentence: str,
    moto_endpoint: str,
    silent_endpoint: str,
    jobs: JobStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The service reaches it, and so ends the attempt in its place."""
    monkeypatch.setattr(ledger, "STORE_PATIENCE_S", 0.2)
    monkeypatch.setattr("workers.logs.attempt.CLOSE_PATIENCE_S", 0.2)
    monkeypatch.setattr(ledger, "FLUSH_INTERVAL_S", 0.1)
    store = at(moto_endpoint)
    store.check()
    monkeypatch.setattr(
        s3_client, "Config", lambda **options: Config(**{**options, "read_timeout": 0.3})
    )
    match where:
        case "no bucket":
            store.uri = at(moto_endpoint, "not-there").uri
        case "nobody":
            store.uri = at(f"http://127.0.0.1:{free_ports(1)[0]}").uri
        case _:
            store.uri = at(silent_endpoint).uri
    with contextlib.closing(InlineCluster()) as cluster:
        service = make_service(jobs, store, tmp_path, cluster)
        job = service.submit(factories.request(limits={"max_attempts": 1}))
        job = service.run_until(job, lambda now: now.state in FINAL_STATES, timeout_s=120)
    assert (job.state, job.reason) == ("failed", "store_unreachable"), job.message
    assert sentence in job.message
    assert SECRET_KEY not in job.message


def test_a_job_runs_on_a_server_that_knows_little(
    moto_proxy: Proxy, jobs: JobStore, tmp_path: Path
) -> None:
    moto_proxy.is_limited = True
    store = at(moto_proxy.endpoint)
    with contextlib.closing(InlineCluster()) as cluster:
        service = make_service(jobs, store, tmp_path, cluster)
        job = service.run_to_end(service.submit(factories.request()))
    assert job.state == "succeeded"
    statuses = {status for _, _, status in moto_proxy.requests}
    assert 501 in statuses  # it was tried out
    results = Results(jobs, store)
    best = results.checkpoint(job.id, "latest")
    drawn = Sampling(results, store, tmp_path).draw(best, SampleRequest(4, seed=0, spread=False))
    assert drawn.array.shape == (4, 2)
