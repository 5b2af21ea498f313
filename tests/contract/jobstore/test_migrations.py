import sqlite3
from pathlib import Path

import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, create_engine

from service.errors import ConfigurationError
from service.jobs import Job
from service.jobstore import JobStore, migrations
from service.jobstore.rows import attempt_row, job_row
from tests.contract.jobstore import making
from tests.contract.jobstore.making import queued, together


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


def url(path: Path) -> str:
    return f"sqlite:///{path}"


PINNED = "sha256:" + "5" * 64


def first_revision(path: Path) -> list[Job]:
    """A database as version 0001 left it, with two jobs, one of which has an attempt."""
    pinned = making.spec(dataset={"name": "digits", "digest": PINNED})
    jobs = [making.job(of=pinned), making.job()]
    engine = create_engine(url(path))
    with engine.begin() as connection:
        script = ScriptDirectory(str(Path(migrations.__file__).parent))
        step = MigrationStep.upgrade_from_script(script.revision_map, script.get_revision("0001"))
        context = MigrationContext.configure(connection, opts={"fn": lambda *_: [step]})
        with Operations.context(context):
            context.run_migrations()
        tables = MetaData()
        tables.reflect(connection)
        for job in jobs:
            row = job_row(job)
            row = {c.name: row[c.name] for c in tables.tables["jobs"].columns}
            connection.execute(tables.tables["jobs"].insert().values({**row, "last_seq": 1}))
            event = {"seq": 1, "at_us": 0, "attempt": 0, "kind": "state", "data": "{}"}
            connection.execute(tables.tables["events"].insert().values(job_id=job.id, **event))
        row = attempt_row(making.attempt(jobs[0]))
        row = {c.name: row[c.name] for c in tables.tables["attempts"].columns if c.name in row}
        connection.execute(tables.tables["attempts"].insert().values(row))
    engine.dispose()
    return jobs


def test_what_was_stored_is_there_when_the_store_is_opened_again(path: Path) -> None:
    store = JobStore.open(url(path))
    made = queued(store, labels={"team": "a"})
    store.close()
    again = JobStore.open(url(path))
    assert again.get(made.id) == made
    again.close()


def test_one_file_opened_twice_at_once_is_one_store(path: Path) -> None:
    first, second = together([lambda: JobStore.open(url(path))] * 2)
    made = queued(first)
    assert second.get(made.id) == made
    first.close()
    second.close()


def test_a_database_of_the_first_revision_keeps_its_jobs(path: Path) -> None:
    made = first_revision(path)
    store = JobStore.open(url(path))
    for job in made:
        assert store.get(job.id) == job
    assert store.attempts(made[0].id)[0].number == 1
    assert [event.kind for event in store.events(made[0].id)] == ["state"]
    assert store.uploads() == []
    # What a job pins is known of old jobs too.
    pinned, free = (job.spec.data_digest for job in made)
    assert (pinned, free) == (PINNED, None)
    assert store.is_content_used(PINNED)
    assert not store.is_content_used("sha256:" + "0" * 64)
    store.close()


def test_a_file_store_survives_a_loss_of_power(path: Path) -> None:
    store = JobStore.open(url(path))
    with store._database.write() as connection:
        settings = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert settings == ["wal", 2, 1]
    store.close()


def test_a_newer_schema_is_refused_with_what_to_do(path: Path) -> None:
    JobStore.open(url(path)).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(ConfigurationError, match=r"9999.*install the newer version"):
        JobStore.open(url(path))


def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    content = b"this is a letter, not a database\n" * 40
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="is no database but some other file"):
        JobStore.open(url(path))
    assert path.read_bytes() == content


def test_the_database_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()
    with pytest.raises(ConfigurationError, match="belongs to another program"):
        JobStore.open(url(path))
    with sqlite3.connect(path) as connection:
        names = connection.execute("SELECT name FROM sqlite_master").fetchall()
    connection.close()
    assert names == [("recipes",)]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing/jobs\.db cannot be opened"):
        JobStore.open(url(tmp_path / "missing" / "jobs.db"))


@pytest.mark.parametrize("bad", ["", "no url", "nosuchdb://host/name"])
def test_a_url_that_names_no_database_is_refused(bad: str) -> None:
    with pytest.raises(ConfigurationError, match="sqlite:////folder"):
        JobStore.open(bad)


def test_a_password_is_never_in_the_refusal() -> None:
    with pytest.raises(ConfigurationError) as refusal:
        JobStore.open("postgresql+nosuchdriver://user:hunter2@localhost/spreadtrain")
    assert "hunter2" not in str(refusal.value)
