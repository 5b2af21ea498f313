"""What only PostgreSQL has: a server that can be away, a password, and writers beside one another.

Each writer has a store of its own, as the processes of several services do.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import NullPool, create_engine, event, select

from service.checks import check_installation
from service.errors import ConfigurationError, InvalidSpec, JobNotFound, NotReady, StateConflict
from service.jobs import Job, JobFilter, JobState, Reason
from service.jobstore import Idempotency, JobStore
from service.jobstore.listing import page
from service.jobstore.schema import JOBS
from service.settings import Settings
from tests.contract.jobstore import making
from tests.contract.jobstore.making import metrics, queued, running, started, together
from tests.contract.jobstore.test_datasets import ANY, digest, pinning, upload
from tests.postgres import PASSWORD, Postgres

WRITERS = 6


@pytest.mark.parametrize("limit", [1, 2])
def test_the_list_of_all_jobs_comes_in_the_order_of_an_index(postgres_url: str, limit: int) -> None:
    """Without its index PostgreSQL would sort all jobs for each page."""
    engine = create_engine(postgres_url, poolclass=NullPool)
    asked: list[tuple[str, Any]] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        asked.append((statement, values))

    with contextlib.closing(JobStore.open(postgres_url)) as store:
        for _ in range(3):
            queued(store)
        cursor = store.list(JobFilter(), None, limit).next_cursor
    with engine.connect() as connection:
        for after in (None, cursor):
            page(connection, JobFilter(), after, limit)
        connection.exec_driver_sql("SET LOCAL enable_seqscan TO off")  # as if there were many
        for statement, values in asked[:2]:
            plan = connection.exec_driver_sql(f"EXPLAIN {statement}", values).scalars().all()
            assert [line for line in plan if "jobs_by_time" in line], plan
            sorts = [line for line in plan if line.lstrip(" ->").startswith("Sort  (")]
            assert len(sorts) == 1, plan  # that of the page itself, once it is found


@pytest.fixture
def stores(postgres_url: str) -> Iterator[list[JobStore]]:
    """Several services' stores on one database."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(contextlib.closing(JobStore.open(postgres_url)))
            for _ in range(WRITERS)
        ]


@pytest.fixture
def own_server() -> Iterator[Postgres]:
    """A server that a test may stop."""
    server = Postgres(is_durable=True)
    yield server
    server.close()


def at_once(stores: Sequence[JobStore], work: Callable[[JobStore], Any]) -> list[Any]:
    return together([partial(work, store) for store in stores])


# --- writers beside one another -------------------------------------------------------------------


def test_one_key_sent_to_all_services_at_once_makes_one_job(stores: list[JobStore]) -> None:
    for number in range(10):
        key = Idempotency(f"key-{number}", "sha256:body")
        works = [partial(store.add, making.job(), key) for store in stores]
        answers = together(works)
        assert [is_new for _, is_new in answers].count(True) == 1
        assert len({job.id for job, _ in answers}) == 1
    assert sum(stores[0].count_by_state().values()) == 10


def test_a_key_whose_job_is_deleted_meanwhile_makes_a_job_all_the_same(
    stores: list[JobStore],
) -> None:
    key = Idempotency("key", "sha256:body")
    for _ in range(10):
        made, _ = stores[0].add(making.job(), key)
        stores[0].settle(made, JobState.CANCELLED, Reason.CANCELLED, "cancelled")
        works: list[Callable[[], Any]] = [partial(stores[0].delete, made.id)]
        works += [partial(store.add, making.job(), key) for store in stores[1:]]
        answers = together(works)[1:]
        assert all(isinstance(job, Job) for job, _ in answers)
        left = stores[0].replayed(key)
        for job in stores[0].list(JobFilter(state=JobState.QUEUED), None, 100).jobs:
            stores[0].settle(job, JobState.CANCELLED, Reason.CANCELLED, "cancelled")
            stores[0].delete(job.id)
        assert left is None or left.id != made.id


def test_of_all_that_move_a_job_at_once_one_does(stores: list[JobStore]) -> None:
    for _ in range(10):
        job = running(stores[0])
        end = (job, JobState.SUCCEEDED, Reason.COMPLETED, "done")
        answers = together([partial(store.settle, *end) for store in stores])
        assert [type(answer) for answer in answers].count(Job) == 1
        assert [type(answer) for answer in answers].count(StateConflict) == WRITERS - 1
        states = [e.data["state"] for e in stores[0].events(job.id) if e.kind == "state"]
        assert states == ["queued", "running", "succeeded"]


def test_a_wish_and_the_end_that_did_not_see_it_are_never_both_true(stores: list[JobStore]) -> None:
    for _ in range(10):
        job = running(stores[0])
        cancel, settle = together(
            [
                partial(stores[0].request_cancel, job.id),
                partial(stores[1].settle, job, JobState.SUCCEEDED, Reason.COMPLETED, "done"),
            ]
        )
        assert isinstance(cancel, StateConflict) != isinstance(settle, StateConflict)


def test_every_queued_job_is_claimed_once(stores: list[JobStore]) -> None:
    jobs = [queued(stores[0]) for _ in range(20)]

    def claim(store: JobStore) -> list[str]:
        claimed = []
        while waiting := store.startable(3):
            for job in waiting:
                with contextlib.suppress(StateConflict):
                    store.start_attempt(job, making.attempt(job), Reason.STARTING, "starting")
                    claimed.append(job.id)
        return claimed

    claims = at_once(stores, claim)
    assert sorted(job_id for each in claims for job_id in each) == sorted(job.id for job in jobs)
    assert all(len(stores[0].attempts(job.id)) == 1 for job in jobs)


def test_events_of_many_writers_have_numbers_without_gaps(stores: list[JobStore]) -> None:
    job = running(stores[0])
    first = stores[0].last_seq(job.id)

    def write(store: JobStore) -> None:
        mine = stores.index(store)
        for number in range(10):
            if mine == 0:
                store.ingest(job.id, 1, number, [started(), metrics(number, loss_nats=1.0)])
            else:
                store.explain(job, Reason.STARTING, f"writer {mine} says {number}")
                store.set_labels(job.id, {"writer": f"{mine}-{number}"}, None)

    assert at_once(stores, write) == [None] * WRITERS
    events = stores[0].events(job.id)
    assert [event.seq for event in events] == list(range(1, first + 20 + 1))
    assert stores[0].last_seq(job.id) == first + 20
    # Each label moved the version by one: none was lost.
    assert stores[0].get(job.id).version == job.version + 10 * (WRITERS - 1)


def test_a_chunk_that_two_services_read_is_taken_in_once(stores: list[JobStore]) -> None:
    job = running(stores[0])
    for number in range(10):
        records = [metrics(number, loss_nats=1.0)]
        answers = together([partial(store.ingest, job.id, 1, number, records) for store in stores])
        assert sorted(answers) == [False] * (WRITERS - 1) + [True]


def test_one_name_uploaded_to_all_services_at_once_is_there_once(stores: list[JobStore]) -> None:
    for number in range(5):
        new = upload(f"ours-{number}", "a")
        answers = together([partial(store.put_upload, new, ANY) for store in stores])
        changes = sorted(change for _, change, _ in answers)
        assert changes == ["created"] + ["unchanged"] * (WRITERS - 1)


def test_no_job_pins_a_content_that_was_forgotten_at_the_same_moment(
    stores: list[JobStore],
) -> None:
    for _ in range(10):
        stores[0].put_upload(upload("ours", "a"), ANY)
        forgotten, (job, _) = _both(stores, pinning("a"))
        pins = isinstance(job, Job)
        assert pins == isinstance(forgotten, Exception)
        assert stores[0].is_content_used(digest("a")) == pins
        if isinstance(job, Job):
            stores[0].settle(job, JobState.CANCELLED, Reason.CANCELLED, "cancelled")
            stores[0].delete(job.id)
            stores[0].delete_upload("ours", ANY)


def _both(stores: list[JobStore], job: Job) -> tuple[Any, tuple[Any, Any]]:
    forgotten, added = together(
        [
            partial(stores[0].delete_upload, "ours", ANY),
            partial(stores[1].add, job, needs_content=True),
        ]
    )
    if isinstance(added, InvalidSpec):
        return forgotten, (added, False)
    return forgotten, added


def test_a_reader_sees_one_state_of_the_database(stores: list[JobStore]) -> None:
    job = queued(stores[0])
    with stores[0]._database.read() as connection:
        before = connection.execute(select(JOBS.c.state)).scalars().all()
        stores[1].start_attempt(job, making.attempt(job), Reason.STARTING, "starting")
        assert connection.execute(select(JOBS.c.state)).scalars().all() == before == ["queued"]


def test_what_is_done_alone_in_one_process_is_done_alone_in_all(stores: list[JobStore]) -> None:
    inside: list[int] = []

    def work(store: JobStore) -> int:
        with store.alone("uploads", "busy"):
            inside.append(1)
            seen = len(inside)
            store.ping()
            inside.pop()
        return seen

    assert at_once(stores, work) == [1] * WRITERS


def test_a_lock_that_is_held_for_too_long_is_refused_with_what_it_is_held_for(
    postgres_url: str, stores: list[JobStore]
) -> None:
    impatient = f"{postgres_url}?options={quote('-c lock_timeout=100')}"
    with (
        contextlib.closing(JobStore.open(impatient)) as store,
        stores[0].alone("uploads", "busy"),
        pytest.raises(NotReady, match="another upload is being stored"),
        store.alone("uploads", "another upload is being stored"),
    ):
        raise AssertionError("two hold one lock")


def test_a_row_that_is_held_for_too_long_is_given_up_and_nothing_is_written(
    postgres_url: str, stores: list[JobStore]
) -> None:
    job = queued(stores[0])
    impatient = f"{postgres_url}?options={quote('-c lock_timeout=100')}"
    with contextlib.closing(JobStore.open(impatient)) as store:
        with stores[0]._database.write() as connection:
            connection.execute(select(JOBS.c.id).with_for_update()).all()
            with pytest.raises(NotReady, match="repeat the request"):
                store.set_labels(job.id, {"team": "a"}, None)
        assert store.set_labels(job.id, {"team": "b"}, None).labels == {"team": "b"}


def test_a_process_that_sleeps_in_a_transaction_loses_its_locks(
    postgres_url: str, stores: list[JobStore]
) -> None:
    job = queued(stores[0])
    options = quote("-c idle_in_transaction_session_timeout=200")
    with contextlib.closing(JobStore.open(f"{postgres_url}?options={options}")) as store:
        asleep = partial(stores[0].set_labels, job.id, {"team": "a"}, None)
        with pytest.raises(NotReady):
            _sleep_in_a_transaction(store, asleep)
        assert store.get(job.id).labels == {"team": "a"}


def _sleep_in_a_transaction(store: JobStore, until: Callable[[], object]) -> None:
    with store._database.write() as connection:
        connection.execute(select(JOBS.c.id).with_for_update()).all()
        until()  # waits for the row, which is free once the server has ended this transaction
        connection.execute(select(JOBS.c.id))


# --- text -----------------------------------------------------------------------------------------


def test_a_nul_in_what_was_said_is_replaced_and_in_a_name_finds_nothing(
    stores: list[JobStore],
) -> None:
    job = running(stores[0])
    said = stores[0].settle(job, JobState.FAILED, Reason.DIVERGED, "NUL \0 in it")
    assert said.message == "NUL \N{REPLACEMENT CHARACTER} in it"
    with pytest.raises(JobNotFound):
        stores[0].get(f"{job.id}\0")
    assert stores[0].upload("ours\0") is None


def test_a_database_that_cannot_store_every_text_is_refused(postgres: Postgres) -> None:
    postgres.execute("CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0")
    with pytest.raises(ConfigurationError, match=r"encoding SQL_ASCII, .* make one with"):
        JobStore.open(postgres.url("ascii"))


# --- the server -----------------------------------------------------------------------------------


def test_a_store_goes_on_after_the_server_was_away(own_server: Postgres) -> None:
    with contextlib.closing(JobStore.open(own_server.url())) as store:
        job = queued(store)
        own_server.stop()
        for ask in (store.ping, partial(store.get, job.id), partial(store.add, making.job())):
            with pytest.raises(NotReady):
                ask()
        with pytest.raises(NotReady), store.alone("uploads", "busy"):
            pass
        own_server.start()
        assert store.get(job.id) == job
        assert queued(store).state is JobState.QUEUED


def test_a_lock_that_ends_with_its_connection_is_no_error(own_server: Postgres) -> None:
    with contextlib.closing(JobStore.open(own_server.url())) as store:
        with store.alone("uploads", "busy"):
            own_server.stop()
            own_server.start()
        with store.alone("uploads", "busy"):
            store.ping()


@pytest.mark.parametrize("wrong", ["password", "query", "port", "database"])
def test_a_password_is_in_no_refusal_and_no_finding(
    wrong: str, postgres: Postgres, tmp_path: Path
) -> None:
    where = f"127.0.0.1:{postgres.port}/postgres"
    url = {
        "password": f"postgresql+psycopg://postgres:not-{PASSWORD}@{where}",
        "query": f"postgresql+psycopg://postgres@{where}?password=not-{PASSWORD}",
        "port": f"postgresql://postgres:{PASSWORD}@127.0.0.1:1/postgres",
        "database": f"postgresql://postgres:{PASSWORD}@127.0.0.1:{postgres.port}/none",
    }[wrong]
    settings = Settings(data_dir=tmp_path, database_url=url)
    findings = {finding.part: finding for finding in check_installation(settings)}
    assert findings["database"].state == "wrong"
    assert "127.0.0.1" in findings["database"].detail
    assert PASSWORD not in "".join(str(finding) for finding in findings.values())
    assert PASSWORD not in repr(settings)


def test_a_plain_address_means_the_driver_that_is_installed(postgres_url: str) -> None:
    with contextlib.closing(JobStore.open(postgres_url.replace("+psycopg", ""))) as store:
        store.ping()
