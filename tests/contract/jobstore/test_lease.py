"""Who leads: one at a time, by a number that every write of the leader names."""

import contextlib
from functools import partial
from typing import NoReturn
from urllib.parse import quote

import psycopg
import pytest
from sqlalchemy import bindparam, update

from service.errors import NotLeading, NotReady
from service.jobs import JobState, Reason
from service.jobstore import JobStore
from service.jobstore.schema import JOBS
from service.leadership import Alone, Leadership
from tests.contract.jobstore import making
from tests.contract.jobstore.making import metrics, queued, running, together

LONG_S = 600.0
OVER_S = 0.0  # such a lease is over at once


def test_a_lease_is_one_services_until_it_is_given_back(store: JobStore) -> None:
    first = store.take_lease("one", LONG_S)
    assert first is not None
    assert store.take_lease("two", LONG_S) is None
    assert store.renew_lease(first, LONG_S)
    lease = store.lease()
    assert (lease.number, lease.service) == (first, "one")
    assert 0 < lease.left_s <= LONG_S
    store.give_back_lease(first)
    assert not store.renew_lease(first, LONG_S)
    assert store.take_lease("two", LONG_S) == first + 1


def test_a_lease_that_is_over_is_not_renewed_and_goes_to_who_asks(store: JobStore) -> None:
    first = store.take_lease("one", OVER_S)
    assert first is not None
    assert store.lease().left_s <= 0
    assert not store.renew_lease(first, LONG_S)
    second = store.take_lease("two", LONG_S)
    assert second == first + 1
    store.give_back_lease(first)  # of an old leader that ends: it has nothing to give back
    assert store.renew_lease(second, LONG_S)


def test_an_old_leader_writes_nothing_and_users_write_on(store: JobStore) -> None:
    old = store.take_lease("one", OVER_S)
    led_before = store.fenced(lambda: old)
    expired, job = running(store), running(store)
    store.settle(expired, JobState.SUCCEEDED, Reason.COMPLETED, "done")
    new = store.take_lease("two", LONG_S)
    leads_now = store.fenced(lambda: new)
    for write in (
        partial(led_before.settle, job, JobState.SUCCEEDED, Reason.COMPLETED, "done"),
        partial(led_before.explain, job, Reason.RECOVERING, "lost"),
        partial(led_before.ingest, job.id, 1, 0, [metrics(1, loss_nats=1.0)]),
        partial(led_before.note_process, job.id, 1, 7, "node"),
        partial(led_before.delete_expired, {JobState.SUCCEEDED: 0.0}, 10),
        partial(led_before.purge, job.id),
        partial(led_before.ledger.request_pause, "study-none"),
    ):
        with pytest.raises(NotLeading):
            write()
    assert store.get(job.id) == led_before.get(job.id) == job
    assert store.set_labels(job.id, {"team": "a"}, None).labels == {"team": "a"}
    seen = leads_now.get(job.id)
    done = leads_now.settle(seen, JobState.SUCCEEDED, Reason.COMPLETED, "done")
    assert done.state is JobState.SUCCEEDED


def test_who_never_led_and_whose_lease_is_over_with_no_successor_write_nothing(
    store: JobStore,
) -> None:
    job = queued(store)
    over = store.take_lease("one", OVER_S)
    for number in (None, over):
        fenced = store.fenced(partial(_same, number))
        with pytest.raises(NotLeading):
            fenced.explain(job, Reason.WAITING_FOR_CLUSTER, "waits")


def _same(number: int | None) -> int | None:
    return number


def test_of_many_services_that_ask_at_once_one_leads(postgres_url: str) -> None:
    with contextlib.ExitStack() as stack:
        stores = [
            stack.enter_context(contextlib.closing(JobStore.open(postgres_url))) for _ in range(6)
        ]
        for _ in range(10):
            answers = together([partial(each.take_lease, "one of six", LONG_S) for each in stores])
            (number,) = (answer for answer in answers if answer is not None)
            stores[0].give_back_lease(number)


def test_a_lease_ends_only_between_two_writes_of_its_leader(postgres_url: str) -> None:
    impatient = f"{postgres_url}?options={quote('-c lock_timeout=100')}"
    with (
        contextlib.closing(JobStore.open(postgres_url)) as store,
        contextlib.closing(JobStore.open(impatient)) as other,
    ):
        number = store.take_lease("one", LONG_S)
        assert number is not None
        with store.fenced(lambda: number)._database.write():
            with pytest.raises(NotReady):
                other.give_back_lease(number)
            with store.fenced(lambda: number)._database.write():
                pass  # those of its leader do not wait for one another
        other.give_back_lease(number)
        assert other.take_lease("two", LONG_S) == number + 1


def test_a_leader_that_is_stopped_between_two_messages_holds_up_its_successor_for_no_longer(
    postgres_url: str,
) -> None:
    plain = postgres_url.replace("+psycopg", "")
    with (
        contextlib.closing(JobStore.open(postgres_url)) as store,
        contextlib.closing(psycopg.connect(plain)) as stopped,
    ):
        first = store.take_lease("one", OVER_S)
        assert first is not None
        with contextlib.suppress(psycopg.OperationalError), stopped.pipeline() as series:
            stopped.execute("SELECT number FROM leadership FOR SHARE").fetchall()
            series.sync()
            # The server does this, and waits for the next message without any limit of time.
            stopped.execute("SELECT 1")
            stopped.pgconn.send_flush_request()
            stopped.pgconn.flush()
            second = None
            for _ in range(60):
                with contextlib.suppress(NotReady):  # it waits for a second each time
                    second = second or store.take_lease("two", LONG_S)
            assert second == first + 1
        assert stopped.broken


def test_no_write_is_a_series_of_messages(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(_: psycopg.Pipeline) -> NoReturn:
        raise AssertionError("a series of messages, in the middle of which nobody may be stopped")

    monkeypatch.setattr(psycopg.Pipeline, "__enter__", begin)
    with contextlib.closing(JobStore.open(postgres_url)) as store:
        job = running(store, labels={"team": "a", "kind": "b"})
        records = [metrics(step, a=1.0, b=float("nan")) for step in range(5)]
        store.ingest(job.id, 1, 0, records)
        store.ingest(job.id, 1, 1, [metrics(4, a=2.0), metrics(5, a=3.0)])
        curve = store.metrics(job.id, ["a"])["a"]
        assert [(point.step, point.value) for point in curve[-2:]] == [(4, 2.0), (5, 3.0)]
        assert len(store.events(job.id)) == 9
        with store._database.write() as connection:
            connection.execute(
                update(JOBS).where(JOBS.c.id == bindparam("job")).values(name=bindparam("name")),
                [{"job": job.id, "name": "first"}, {"job": job.id, "name": "second"}],
            )
        assert store.get(job.id).name == "second"


# --- the service's part ---------------------------------------------------------------------------


def test_the_next_leads_as_soon_as_the_first_has_stopped(store: JobStore) -> None:
    first, second = Leadership(store, "one:1", LONG_S), Leadership(store, "two:2", LONG_S)
    woken: list[str] = []
    first.start(lambda: woken.append("first"))
    second.start(lambda: woken.append("second"))
    assert (first.leads(), second.leads()) == (True, False)
    assert first.leader() == (True, f"this service leads, by lease {first.number()}")
    assert second.leader() == (True, f"one:1 leads, by lease {first.number()}")
    first.stop()
    second.look()
    assert (first.leads(), second.leads()) == (False, True)
    assert woken == ["first", "second"]
    second.stop()
    assert second.leader() == (False, "no service leads; the last one was two:2")


def test_a_leader_whose_lease_went_by_leads_no_more(store: JobStore) -> None:
    sleeper = Leadership(store, "one:1", LONG_S)
    sleeper.look()
    number = sleeper.number()
    assert number is not None
    store.give_back_lease(number)  # as if it had slept for so long
    taken = store.take_lease("two:2", LONG_S)
    sleeper.look()
    assert (sleeper.leads(), sleeper.number()) == (False, None)
    with pytest.raises(NotLeading):
        store.fenced(sleeper.number).add(making.job())
    assert store.lease().number == taken


def test_one_service_alone_always_leads() -> None:
    assert Alone().leads()
    assert Alone().leader() is None
