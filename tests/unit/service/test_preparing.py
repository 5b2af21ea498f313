from pathlib import Path

import pytest

from service.errors import ConfigurationError
from service.jobstore import JobStore
from service.preparing import prepare
from service.settings import Settings


def test_preparing_makes_the_tables_and_waits_for_nothing_that_is_there(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    prepare(settings, 0.0)
    assert (tmp_path / "spreadtrain.db").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.jobstore.database.migrate", lambda connection: None)
        store = JobStore.open(settings.database)  # the tables are there without it
    assert store.installation()
    store.close()


def test_a_part_that_appears_in_time_is_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "late"
    settings = Settings(data_dir=tmp_path, database_url=f"sqlite:///{folder / 'jobs.db'}")
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            folder.mkdir()

    prepare(settings, 10.0, sleep, lambda: float(len(waits)))
    assert len(waits) == 3


def test_a_part_that_does_not_appear_is_named(tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path, database_url=f"sqlite:///{tmp_path / 'none' / 'jobs.db'}"
    )
    waits: list[float] = []
    with pytest.raises(ConfigurationError, match=r"jobs\.db"):
        prepare(settings, 3.0, waits.append, lambda: float(len(waits)))
    assert len(waits) == 3
