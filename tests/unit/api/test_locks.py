"""What a service takes for itself before it opens anything."""

from pathlib import Path

import pytest

from api.main import _locks
from service.errors import ConfigurationError
from service.settings import Settings

WAYS = [
    "sqlite:///{path}",
    "sqlite+pysqlite:///{path}",
    "sqlite:///{path}?timeout=20",
    "sqlite:///file:{path}?mode=rw&uri=true",
    "sqlite:///{link}",
]


@pytest.mark.parametrize("way", WAYS)
def test_one_database_has_one_service_however_its_url_is_written(way: str, tmp_path: Path) -> None:
    path, link = tmp_path / "jobs.db", tmp_path / "link.db"
    link.symlink_to(path)
    first = Settings(data_dir=tmp_path / "a", database_url=f"sqlite:///{path}")
    url = way.format(path=path, link=link)
    second = Settings(data_dir=tmp_path / "b", database_url=url)
    with (
        _locks(first),
        pytest.raises(ConfigurationError, match="another service is running"),
        _locks(second),
    ):
        raise AssertionError("two services watch one database")
    with _locks(second):  # once the first is gone
        assert (tmp_path / "jobs.db.lock").exists()


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:jobs?mode=memory&uri=true"]
)
def test_a_database_in_memory_is_refused_with_what_to_set(url: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "a", database_url=url)
    with pytest.raises(ConfigurationError, match="leave it empty"), _locks(settings):
        raise AssertionError("its jobs would be lost")


@pytest.mark.parametrize("url", ["postgresql+psycopg://host/name", "nosuchdb://host/name", "no"])
def test_a_server_locks_no_file(url: str, tmp_path: Path) -> None:
    with _locks(Settings(data_dir=tmp_path / "a", database_url=url)):
        assert [path.name for path in tmp_path.rglob("*.lock")].count("service.lock") == 1
