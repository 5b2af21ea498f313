"""Two services on one PostgreSQL, one Ray and one artifact store: one of them leads."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from api.client import JobHandle
from service.jobs import FINAL_STATES
from service.jobstore import JobStore
from tests.e2e.processes import (
    ForkedService,
    ServiceProcess,
    pid_of_attempt,
    spec,
    wait_for,
    wait_until,
)
from tests.e2e.test_restarts import begun
from tests.other_ray import OtherRay
from tests.postgres import PASSWORD, Postgres

LEASE_S = 3


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[OtherRay]:
    ray = OtherRay()
    yield ray
    ray.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    server = Postgres(is_durable=True)
    yield server
    server.close()


@dataclass
class Pair:
    """Two services, and how one is started."""

    services: list[ServiceProcess]
    begin: Callable[[str, int | None], ServiceProcess]

    def by_turn(self) -> tuple[ServiceProcess, ServiceProcess]:
        """Who leads, and who follows."""
        wait_until(lambda: any(map(leads, self.services)), 240, "one of them to lead")
        first, second = self.services
        return (first, second) if leads(first) else (second, first)

    def restart(self, service: ServiceProcess) -> ServiceProcess:
        """The one that has ended, again."""
        place = self.services.index(service)
        name = service.data_dir.name.removeprefix("data-")
        self.services[place] = self.begin(name, service.port)
        return self.services[place]


@pytest.fixture(scope="module")
def pair(
    ray_cluster: OtherRay, server: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """Both of them for all tests, the last of which leaves one."""
    folder = tmp_path_factory.mktemp("pair")
    settings = {
        **ray_cluster.settings,
        "SPREADTRAIN_DATABASE_URL": server.url(),
        "SPREADTRAIN_ARTIFACTS_URI": (folder / "artifacts").as_uri(),
        "SPREADTRAIN_LEASE_S": str(LEASE_S),
    }
    with contextlib.ExitStack() as stack:

        def begin(name: str, port: int | None = None) -> ServiceProcess:
            service = ForkedService(folder / f"data-{name}", port, **settings)
            stack.callback(service.end)
            return service

        yield Pair([begin("one"), begin("two")], begin)


def leads(service: ServiceProcess) -> bool:
    (part,) = (part for part in service.client.ready().parts if part.name == "leader")
    return part.detail.startswith("this service leads")


def same(job: JobHandle, service: ServiceProcess) -> JobHandle:
    return service.client.job(job.id)


def changes(job: JobHandle) -> list[str]:
    """The states that the job, which has ended, went through."""
    states = [str(event.data["state"]) for event in job.watch() if event.kind == "state"]
    return [
        state for state, before in zip(states, [None, *states], strict=False) if state != before
    ]


def test_a_leader_that_slept_through_its_lease_writes_nothing_any_more(
    pair: Pair, server: Postgres
) -> None:
    leader, other = pair.by_turn()
    job = leader.client.submit(spec(10_000))
    wait_for(job, begun, "two checkpoints")
    leader.process.send_signal(signal.SIGSTOP)
    seen = same(job, other)
    wait_until(lambda: leads(other), 240, "the other to lead")
    with contextlib.closing(JobStore.open(server.url())) as store:
        lease = store.lease().number
        seen.cancel()
        wait_until(lambda: seen.refresh().state == "cancelled", 240, "the job to be cancelled")
        before = store.get(job.id), store.events(job.id)
        leader.process.send_signal(signal.SIGCONT)
        wait_until(leader.is_ready, 240, "the old leader to be there again")
        assert not leads(leader)
        done = same(seen, leader)
        assert done.refresh().state in FINAL_STATES
        # What it has to do now is what anybody sends it, and the leader carries it out.
        next_job = leader.client.submit(spec(2))
        assert next_job.wait(240).state == "succeeded"
        assert (store.get(job.id), store.events(job.id)) == before
        assert store.lease().number == lease
    assert changes(next_job) == ["queued", "running", "succeeded"]


def test_both_go_on_after_the_database_was_away(pair: Pair, server: Postgres) -> None:
    leader, other = pair.by_turn()
    known = {service: len(service.log.read_text()) for service in pair.services}
    job = other.client.submit(spec(150))
    wait_for(job, begun, "two checkpoints")
    server.stop()
    wait_until(lambda: not leader.is_ready(), 240, "the service to miss its database")
    server.start()
    for service in pair.services:
        wait_until(service.is_ready, 240, "the service to find its database again")
    assert job.wait(240).state == "succeeded"
    assert [attempt.reason for attempt in job.refresh().body.attempts] == ["completed"]

    # What went wrong meanwhile is in the logs, but for the password.
    for service in pair.services:
        said = service.log.read_text()[known[service] :]
        assert "the database does not answer" in said
        assert PASSWORD not in said


def test_a_rolling_restart_loses_no_event_and_no_request(
    pair: Pair,
) -> None:
    services = pair.by_turn()
    job = services[0].client.submit(spec(10_000))
    wait_for(job, begun, "two checkpoints")
    pid = pid_of_attempt(job)
    with ThreadPoolExecutor(len(services)) as threads:
        # Each over its own service, which goes away meanwhile.
        watching = [threads.submit(list, same(job, service).watch(240)) for service in services]
        for service, other in (services, services[::-1]):
            assert service.stop() == 0
            # What is sent meanwhile, the other answers; it leads, where it did not.
            sent = other.client.submit(spec(1))
            wait_until(lambda at=other: leads(at), 240, "the other to lead")  # type: ignore[misc]
            again = pair.restart(service)
            assert again.client.job(sent.id).wait(240).state == "succeeded"
        assert pid_of_attempt(job) == pid
        job.cancel()
        for events in (each.result() for each in watching):
            numbers = [event.seq for event in events if event.seq is not None]
            assert numbers == list(range(1, len(numbers) + 1))
            assert events[-1].kind == "end"
            assert events[-1].data["state"] == "cancelled"


def test_a_killed_leaders_job_goes_on_under_the_other_service(
    pair: Pair,
) -> None:
    leader, other = pair.by_turn()
    assert not leads(other)
    # Sent to who follows, and seen there: the leader starts it.
    job = other.client.submit(spec(150))
    wait_for(job, begun, "two checkpoints")
    pid = pid_of_attempt(job)
    assert f":{leader.port} leads" in str(other.client.ready().parts)

    leader.kill()
    wait_until(lambda: leads(other), 240, "the other to lead")
    assert pid_of_attempt(job) == pid
    assert job.wait(240).state == "succeeded"
    assert [attempt.reason for attempt in job.refresh().body.attempts] == ["completed"]
    assert changes(job) == ["queued", "running", "succeeded"]
