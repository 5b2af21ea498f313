import contextlib
import socket
from pathlib import Path

import pytest

from service.access.first import prepare
from service.checks import Finding, check_installation, folders
from service.checks.elsewhere import check_ray
from service.cluster.base import Capacity, ClusterUnavailable, Node
from service.jobstore import JobStore
from service.settings import Settings
from tests.s3_servers import BUCKET, Proxy, free_ports


def findings_of(settings: Settings) -> dict[str, Finding]:
    return {finding.part: finding for finding in check_installation(settings, with_ray=False)}


def test_a_sound_installation_has_nothing_wrong(tmp_path: Path) -> None:
    found = findings_of(Settings(data_dir=tmp_path / "data"))
    assert {"data folder", "database", "storage", "storage: range"} <= set(found)
    assert "wrong" not in {finding.state for finding in found.values()}
    assert {"temporary folder", "open files", "memory", "port", "tracing"} <= set(found)
    assert found["storage: checksums"].detail  # what is done instead


def test_each_part_that_fails_is_wrong_by_itself(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("in the way")
    found = findings_of(
        Settings(
            data_dir=in_the_way,
            database_url=f"sqlite:///{in_the_way}",
            artifacts_uri=(in_the_way / "artifacts").as_uri(),
        )
    )
    wrong = {part for part, finding in found.items() if finding.state == "wrong"}
    assert wrong == {"data folder", "database", "storage"}
    assert "SPREADTRAIN_DATA_DIR" in found["data folder"].detail


def test_a_server_that_knows_little_is_listed_with_its_fallbacks(
    moto_proxy: Proxy, tmp_path: Path, s3_credentials: None
) -> None:
    moto_proxy.is_limited = True
    found = findings_of(
        Settings(
            data_dir=tmp_path, artifacts_uri=f"s3://{BUCKET}/x", s3_endpoint=moto_proxy.endpoint
        )
    )
    assert found["storage"].state == "ok"
    assert found["storage: multipart"].state == "ok"
    assert found["storage: conditional put"].state == "fallback"
    assert "safe for one writer" in found["storage: conditional put"].detail


def test_a_server_that_is_not_there_is_wrong(tmp_path: Path, s3_credentials: None) -> None:
    endpoint = f"http://127.0.0.1:{free_ports(1)[0]}"
    found = findings_of(
        Settings(data_dir=tmp_path, artifacts_uri="s3://bucket", s3_endpoint=endpoint)
    )
    assert found["storage"].state == "wrong"
    assert "cannot be reached" in found["storage"].detail


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////no/such/folder/x.db"])
def test_a_database_that_cannot_be_used_is_wrong(url: str, tmp_path: Path) -> None:
    assert findings_of(Settings(data_dir=tmp_path, database_url=url))["database"].state == "wrong"


class Played:
    """A cluster that starts with so many cores, or not at all."""

    def __init__(self, cpus: float | None) -> None:
        self.cpus = cpus
        self.is_closed = False

    def start(self) -> None:
        if self.cpus is None:
            raise ClusterUnavailable("Ray at there cannot be joined; check RAY_ADDRESS")

    def capacity(self) -> Capacity:
        assert self.cpus is not None
        return Capacity((Node(self.cpus, 1.0, 1 << 30),))

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize(
    ("cpus", "state", "detail"),
    [(2.0, "ok", "2 cores, 1 GPUs"), (0.0, "wrong", "0 cores"), (None, "wrong", "RAY_ADDRESS")],
)
def test_ray_is_joined_seen_and_left(cpus: float | None, state: str, detail: str) -> None:
    ray = Played(cpus)
    settings = Settings(ray_address="there:6379")
    found = {finding.part: finding for finding in check_ray(settings, lambda *_: ray)}
    assert found["ray"].state == state
    assert detail in found["ray"].detail
    assert ray.is_closed
    if cpus is not None:  # its nodes may be elsewhere, and the artifacts are in a folder here
        assert found["ray: storage"].state == "warning"


def test_a_check_of_an_own_ray_does_not_touch_that_of_a_service(tmp_path: Path) -> None:
    given: list[Path] = []

    def make(_: Settings, folder: Path) -> Played:
        given.append(folder)
        return Played(1.0)

    (finding,) = check_ray(Settings(data_dir=tmp_path), make)
    assert finding.state == "ok"
    assert given[0] != tmp_path
    assert not given[0].exists()


def test_spans_that_nobody_would_take_are_wrong(tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    found = findings_of(Settings(data_dir=tmp_path, tracing=nobody))["tracing"]
    assert found.state == "wrong"
    assert f"{nobody} takes no spans" in found.detail
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    blocked = findings_of(Settings(data_dir=tmp_path, tracing=in_the_way.as_uri()))["tracing"]
    assert blocked.state == "wrong"
    folder = (tmp_path / "spans").as_uri()
    assert findings_of(Settings(data_dir=tmp_path, tracing=folder))["tracing"].state == "ok"


def test_what_the_machine_is_too_small_for_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "OPEN_FILES", 1 << 40)
    monkeypatch.setattr(folders, "SHARED_MEMORY_BYTES", 1 << 60)
    settings = Settings(
        data_dir=tmp_path, sample_cache_bytes=1 << 60, max_upload_bytes=1 << 44, port=0
    )
    found = findings_of(settings)
    for part, advice in (
        ("open files", "ulimit -n"),
        ("shared memory", "--shm-size"),
        ("memory", "SPREADTRAIN_SAMPLE_CACHE_BYTES"),
        ("room for uploads", "SPREADTRAIN_MAX_UPLOAD_BYTES"),
    ):
        assert found[part].state == "warning", part
        assert advice in found[part].detail


def test_a_port_that_is_taken_and_weights_that_are_not_there_are_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = Settings(data_dir=tmp_path, port=port, fid_weights=str(tmp_path / "none.pth"))
        found = findings_of(settings)
    assert found["port"].state == "warning"
    assert "SPREADTRAIN_PORT" in found["port"].detail
    assert found["FID weights"].state == "wrong"
    away = Settings(data_dir=tmp_path, fid_weights=f"http://127.0.0.1:{free_ports(1)[0]}/w.pth")
    assert findings_of(away)["FID weights"].state == "warning"


def test_keys_and_the_file_of_the_first_one_are_looked_at_and_never_told(tmp_path: Path) -> None:
    file = tmp_path / "admin.key"
    settings = Settings(data_dir=tmp_path / "data", admin_key_file=file)
    at_first = findings_of(settings)
    assert at_first["API keys"].detail.startswith("none, and none is needed")
    assert at_first["admin key file"].detail.endswith("is made at the first start")
    assert not file.exists()
    said: list[str] = []
    with contextlib.closing(JobStore.open(settings.database)) as jobs:
        prepare(settings, jobs, said.append)
    found = findings_of(settings)
    assert (found["API keys"].state, found["admin key file"].state) == ("ok", "ok")
    secret = file.read_text().strip()
    assert not any(secret in finding.detail for finding in found.values())
    file.chmod(0o644)
    assert "chmod 600" in findings_of(settings)["admin key file"].detail
    file.write_text("x" * 40)
    file.chmod(0o600)
    assert findings_of(settings)["admin key file"].state == "warning"
    file.write_text("short")
    assert findings_of(settings)["admin key file"].state == "wrong"
    file.unlink()
    assert findings_of(settings)["admin key file"].state == "warning"


def test_a_service_in_a_network_without_a_key_is_wrong(tmp_path: Path) -> None:
    found = findings_of(Settings(data_dir=tmp_path, host="0.0.0.0", port=0))
    assert found["API keys"].state == "wrong"
    assert "spreadtrain keys create" in found["API keys"].detail
    with_file = Settings(
        data_dir=tmp_path, host="0.0.0.0", port=0, admin_key_file=tmp_path / "admin.key"
    )
    assert findings_of(with_file)["API keys"].state == "ok"
