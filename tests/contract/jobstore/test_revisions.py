"""From every earlier schema to this one, on each database: rows stay, and mean what they meant."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, MetaData, Table, Text, create_engine, inspect, select

from service.access.audit import Deed
from service.access.keys import KeyLimits
from service.jobs import JobState, Reason
from service.jobstore import Idempotency, JobStore, migrations
from service.jobstore.schema import ATTEMPTS, INSTALLATION, JOBS, LEADERSHIP, METADATA, STUDIES
from tests.contract.jobstore import making
from tests.contract.jobstore.test_datasets import ANY, pinning, study_pinning, upload
from tests.contract.jobstore.test_ledger import begun, running
from tests.postgres import Postgres
from workers.events import Record

SCRIPT = ScriptDirectory(str(Path(migrations.__file__).parent))
REVISIONS = [script.revision for script in SCRIPT.walk_revisions()][::-1]
VERSION = Table(migrations.VERSION_TABLE, MetaData(), Column("version_num", Text, primary_key=True))
KEY = Idempotency("once", "sha256:body")
# What a revision says of rows that are older than it, where that is not "nothing".
MEANT = {
    JOBS.name: {"pause_requested": False, "counts_from": 0},
}


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'jobs.db'}"
        return
    server: Postgres = request.getfixturevalue("postgres")
    with server.database() as name:
        yield server.url(name)


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    engine = create_engine(url)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def upgrade(connection: Connection, revision: str) -> None:
    """From nothing to the schema of a revision."""
    steps = [
        MigrationStep.upgrade_from_script(SCRIPT.revision_map, SCRIPT.get_revision(name))
        for name in REVISIONS[: REVISIONS.index(revision) + 1]
    ]
    context = MigrationContext.configure(connection, opts={"fn": lambda *_: steps})
    with Operations.context(context):
        context.run_migrations()


def test_the_migrations_build_the_tables_of_the_schema(url: str) -> None:
    """All of them: an empty database gets the schema without the revisions."""
    with connected(url) as connection:
        upgrade(connection, REVISIONS[-1])
        built, filled = described(connection), first_rows(connection)
        METADATA.drop_all(connection)
        connection.exec_driver_sql(f"DROP TABLE {migrations.VERSION_TABLE}")
    with connected(url) as connection:
        assert not described(connection)
    JobStore.open(url).close()
    with connected(url) as connection:
        assert described(connection) == built
        assert first_rows(connection) == filled
    assert {"studies_by_dataset_digest", "jobs_by_wish"} <= {name for name, *_ in built}


def first_rows(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    """What a database without jobs has in it; of a random id, its length."""
    found = {table.name: rows(connection, table) for table in (*METADATA.sorted_tables, VERSION)}
    (installation,) = found[INSTALLATION.name]
    installation["id"] = len(installation["id"])
    return found


def described(connection: Connection) -> set[tuple[object, ...]]:
    """All that a database has, each in the database's own words: (name, what is said of it)."""
    if connection.dialect.name == "postgresql":
        return {tuple(row) for asked in _OF_POSTGRES for row in connection.exec_driver_sql(asked)}
    found: set[tuple[object, ...]] = set()
    for name, kind, sql in connection.exec_driver_sql("SELECT name, type, sql FROM sqlite_master"):
        if kind == "table":
            found |= _of_sqlite_table(connection, name)
        else:  # the index of a constraint has no statement of its own
            found.add((name, kind, sql and " ".join(sql.split())))
    return found


_OF_POSTGRES = (
    "SELECT column_name, table_name, data_type, character_maximum_length, is_nullable, "
    "column_default, is_identity FROM information_schema.columns WHERE table_schema = 'public'",
    "SELECT conname, conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint "
    "WHERE connamespace = 'public'::regnamespace",
    "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "SELECT sequence_name, data_type, start_value FROM information_schema.sequences",
    "SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    "SELECT tgname, tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal",
)


def _of_sqlite_table(connection: Connection, name: str) -> set[tuple[object, ...]]:
    columns = connection.exec_driver_sql(f"PRAGMA table_xinfo({name})")
    found: set[tuple[object, ...]] = {(name, *column[1:]) for column in columns}  # but its place
    (listed,) = connection.exec_driver_sql(f"PRAGMA table_list({name})")
    has_rowid, is_strict = listed[4:6]
    asked = inspect(connection)
    return found | {
        (name, has_rowid, is_strict),
        *((name, "key", repr(key)) for key in sorted(map(repr, asked.get_foreign_keys(name)))),
        *((name, "unique", repr(one)) for one in asked.get_unique_constraints(name)),
        *((name, "check", repr(one)) for one in asked.get_check_constraints(name)),
    }


def lived_in() -> JobStore:
    """A store of this version in which each table has rows."""
    store = JobStore.open("sqlite://")
    store.put_upload(upload("ours", "a"), ANY)
    store.add(pinning("a"), needs_content=True)
    store.add(making.job(labels={"team": "a", "Ünï": "ß"}), KEY)
    job = making.running(store)
    records: list[Record] = [
        making.started(),
        making.first_step(1),
        making.metrics(10, 2, loss_nats=1.5, kl_nats=float("nan")),
        making.checkpoint(10, is_best=True),
        making.artifact("grid", step=10),
    ]
    store.ingest(job.id, 1, 0, records)
    again = making.resumed(store, store.get(job.id), resumed_from="00000010")
    store.settle(again, JobState.FAILED, Reason.DIVERGED, "the loss is NaN at step 12")
    study = running(store)
    store.studies.submit(study_pinning("a", "study-2"), KEY, needs_content=True)
    trial = begun(store, study)
    store.ledger.add_results(study, [(trial.number, 1, {"kid_pca": 0.5})], making.NOON)
    store.add(making.job(owner="ana"))
    store.keys.add(making.key("ana", KeyLimits(running=3, requests_per_s=0.5)))
    store.audit.begin(Deed("ana", "9f86", "POST", "/v1/jobs", "request", "10.0.0.7"), 60, 10)
    return store


def rows(connection: Connection, table: Table) -> list[dict[str, Any]]:
    """All rows of a table, by their keys."""
    found = connection.execute(select(table).order_by(*table.primary_key.columns))
    return [dict(row._mapping) for row in found]


def fill(connection: Connection, source: JobStore) -> dict[str, list[dict[str, Any]]]:
    """Put into a database of an earlier schema what it can hold of a store; what it holds then."""
    tables = MetaData()
    tables.reflect(connection)
    filled = {}
    with source._database.read() as reading:
        for table in METADATA.sorted_tables:
            if table.name not in tables.tables or table in (INSTALLATION, LEADERSHIP):
                continue
            old = tables.tables[table.name]
            for row in rows(reading, table):
                known = {name: row[name] for name in (column.name for column in old.columns)}
                connection.execute(old.insert().values(known))
            filled[table.name] = rows(connection, old)
    _go_on_counting(connection)
    return filled


def _go_on_counting(connection: Connection) -> None:
    """Some rows were copied with their numbers, which a sequence of PostgreSQL has not seen."""
    if connection.dialect.name == "postgresql":
        for table, column in (("metric_series", "id"), ("audit", "seq")):
            if inspect(connection).has_table(table):
                connection.exec_driver_sql(
                    f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), max({column})) "
                    f"FROM {table}"
                )


@pytest.mark.parametrize("revision", REVISIONS)
def test_an_upgrade_keeps_every_row_and_what_it_means(url: str, revision: str) -> None:
    source = lived_in()
    with connected(url) as connection:
        upgrade(connection, revision)
        before = fill(connection, source)
    store = JobStore.open(url)
    with store._database.read() as connection:
        for table in METADATA.sorted_tables:
            if table.name not in before:
                continue
            after = rows(connection, table)
            assert len(after) == len(before[table.name]), table.name
            for row, old in zip(after, before[table.name], strict=True):
                new = {name: row[name] for name in row.keys() - old.keys()}
                assert {name: row[name] for name in old} == old
                assert new == _meant(table, row, new), table.name
    _assert_lives_on(store)
    store.close()
    source.close()


def _meant(table: Table, row: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    meant = {**dict.fromkeys(new), **MEANT.get(table.name, {})}
    pinning_in = {JOBS.name: "spec", STUDIES.name: "request"}.get(table.name)
    if pinning_in and '"digest":"sha256' in row[pinning_in]:
        meant["dataset_digest"] = _pinned(row[pinning_in])
    return {name: meant[name] for name in new}


def _pinned(asked: str) -> str:
    """The digest that a job's spec or a study's request pins: of the one upload that there is."""
    assert upload("ours", "a").facts.digest in asked
    return upload("ours", "a").facts.digest


def _assert_lives_on(store: JobStore) -> None:
    """Every job of before is read as one, and new ones are taken."""
    kept, is_new = store.add(making.job(), KEY)
    assert not is_new
    assert kept.labels == {"team": "a", "Ünï": "ß"}
    with store._database.read() as connection:
        ids = connection.execute(select(JOBS.c.id)).scalars().all()
        attempts = connection.execute(select(ATTEMPTS.c.job_id)).scalars().all()
    for job_id in ids:
        assert store.get(job_id).id == job_id
        assert len(store.attempts(job_id)) == list(attempts).count(job_id)
        assert [event.seq for event in store.events(job_id)] == list(
            range(1, store.last_seq(job_id) + 1)
        )
    job = making.running(store)
    store.ingest(job.id, 1, 0, [making.started(), making.metrics(1, loss_nats=2.0)])
    assert [point.value for point in store.metrics(job.id)["loss_nats"]] == [2.0]
    number = store.audit.begin(Deed(None, None, "keys list", "", "", ""), 60, 10)
    assert store.audit.page(None, None, 10).entries[0].seq == number


def test_two_services_that_start_at_once_on_an_old_database_upgrade_it_once(url: str) -> None:
    with connected(url) as connection:
        upgrade(connection, REVISIONS[0])
    stores = making.together([lambda: JobStore.open(url)] * 2)
    assert stores[0].installation() == stores[1].installation()
    for store in stores:
        store.close()
    with connected(url) as connection:
        assert set(inspect(connection).get_table_names()) >= METADATA.tables.keys()
