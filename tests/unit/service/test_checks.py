from pathlib import Path

import pytest

from service.checks import Finding, check_installation
from service.settings import Settings
from tests.s3_servers import BUCKET, Proxy, free_ports


def findings_of(settings: Settings) -> dict[str, Finding]:
    return {finding.part: finding for finding in check_installation(settings)}


def test_a_sound_installation_has_nothing_wrong(tmp_path: Path) -> None:
    found = findings_of(Settings(data_dir=tmp_path / "data"))
    assert {"data folder", "database", "storage", "storage: range"} <= set(found)
    assert {finding.state for finding in found.values()} <= {"ok", "fallback"}
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
    assert {finding.state for finding in found.values()} == {"wrong"}
    assert set(found) == {"data folder", "database", "storage"}
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
