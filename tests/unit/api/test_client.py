import contextlib
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from api.client import ApiError, Client, JobFailed, JobHandle, Unreachable
from service.jobs import Job, JobState, Reason
from service.jobstore import JobStore
from tests.factories import long_spec, tiny_spec
from tests.unit.api.conftest import DIGITS, Quiet, Running
from workers.generate import Generator

TINY = tiny_spec().model_dump(mode="json")


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


@pytest.fixture
def trained(client: Client, running: Running) -> JobHandle:
    return client.job(running.trained)


class Relay:
    """A connection to a server that can be cut: what passes goes through this process."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.connections = 0
        self.cut_after: int | None = None  # bytes of the next answers that get through
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=target, args=arguments))
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            far = socket.create_connection(self._target)
            self._sockets += [near, far]
            limit, self.cut_after = self.cut_after, None
            self._start(self._pass, near, far, None)
            self._start(self._pass, far, near, limit)

    def _pass(self, source: socket.socket, target: socket.socket, limit: int | None) -> None:
        left = limit
        try:
            while left != 0 and (data := source.recv(65_536 if left is None else left)):
                left = None if left is None else left - len(data)
                target.sendall(data)
        except OSError:
            pass
        self._cut(source, target)

    @staticmethod
    def _cut(*ends: socket.socket) -> None:
        for end in ends:
            with contextlib.suppress(OSError):  # it is cut already
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._cut(self._listener, *self._sockets)
        for thread in self._threads:
            thread.join()
        for end in (self._listener, *self._sockets):
            end.close()


@pytest.fixture
def relay(url: str) -> Iterator[Relay]:
    relay = Relay(url)
    yield relay
    relay.close()


def test_a_spec_becomes_samples_in_one_line(client: Client) -> None:
    samples = client.submit(TINY, labels={"from": "client"}).wait(60).samples(16)
    assert samples.shape == (16, 2)
    assert samples.dtype == np.float32
    assert np.isfinite(samples).all()


def test_a_whole_request_is_submitted_as_it_is_and_changed_by_arguments(client: Client) -> None:
    request = {"name": "a", "labels": {"x": "1"}, "priority": 1, "spec": TINY}
    job = client.submit(request, name="b", limits={"max_wall_s": 60.0})
    assert (job.body.name, job.body.labels, job.body.priority) == ("b", {"x": "1"}, 1)
    assert job.body.limits.max_wall_s == 60.0
    assert job.id in repr(job)
    job.wait(60)


def test_the_same_key_gives_the_same_job(client: Client) -> None:
    first = client.submit(TINY, idempotency_key="client-test")
    assert client.submit(TINY, idempotency_key="client-test").id == first.id
    assert client.submit(TINY).id != first.id


def test_a_plan_says_what_a_submission_would_do(client: Client) -> None:
    before = [job.id for job in client.jobs()]
    assert client.plan(TINY).steps == 12
    assert [job.id for job in client.jobs()] == before


def test_jobs_are_listed_over_all_pages(client: Client) -> None:
    made = [client.submit(TINY, labels={"page": "yes"}).id for _ in range(3)]
    found = [job.id for job in client.jobs(label="page=yes", page_size=2)]
    assert found == made[::-1]
    assert list(client.jobs(label="page=no")) == []


def test_a_refusal_is_an_error_with_the_problem(client: Client) -> None:
    spread = {"kind": "laplace", "scal": 1.0}
    with pytest.raises(ApiError, match="did you mean 'scale'") as caught:
        client.submit({**TINY, "trainer": {"kind": "delta_vae", "spread": spread}})
    assert caught.value.problem.status == 422
    assert caught.value.problem.errors[0].pointer == "/spec/trainer/spread/scal"
    for name in ("job-none", "../../livez", "a?b#c"):
        with pytest.raises(ApiError) as caught:
            client.job(name)
        assert caught.value.problem.status == 404


def test_nothing_at_the_address_says_how_to_start_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as client, pytest.raises(Unreachable, match="serve"):
        client.datasets()


def test_discovery_is_typed(client: Client) -> None:
    assert "mnist-10k" in [data.name for data in client.datasets()]
    assert "delta_vae" in [trainer.name for trainer in client.trainers()]
    assert client.ready().ready


def test_a_watch_ends_with_the_end(trained: JobHandle) -> None:
    events = list(trained.watch())
    numbers = [event.seq for event in events if event.seq is not None]
    assert numbers == list(range(1, len(numbers) + 1))
    assert events[-1].kind == "end"
    assert events[-1].data["state"] == "succeeded"


def test_a_broken_stream_goes_on_where_it_broke(relay: Relay, running: Running) -> None:
    for cut_after in (700, 1500, 3000):
        with Client(relay.url) as client:
            job = client.job(running.trained)
        relay.cut_after = cut_after
        before = relay.connections
        with Client(relay.url) as client:
            handle = JobHandle(client.connection, job.body)
            events = list(handle.watch())
        assert relay.connections >= before + 2
        numbers = [event.seq for event in events if event.seq is not None]
        assert numbers == list(range(1, len(numbers) + 1))
        assert events[-1].kind == "end"


def test_a_break_after_a_silence_of_any_length_is_ridden_over(
    relay: Relay, running: Running
) -> None:
    with Client(relay.url) as client:
        body = client.job(running.trained).body
    # Without patience each break comes as one after a silence that was longer.
    for follow in (
        lambda job: list(job.watch(patience_s=0)),
        lambda job: job.wait(patience_s=0),
        lambda job: list(job.logs(follow=True, patience_s=0)),
    ):
        relay.cut_after = 700
        with Client(relay.url) as client:
            assert follow(JobHandle(client.connection, body))


def test_a_job_that_was_retried_behind_its_end_is_waited_for(quiet: Quiet, quiet_url: str) -> None:
    def end(jobs: JobStore, job: Job) -> Job:
        return jobs.settle(job, JobState.CANCELLED, Reason.CANCELLED, "ended")

    job_id = quiet.submit()
    quiet.change(job_id, end)

    class Retried(JobHandle):
        """Was retried when it is read for the first time, and has ended the next time."""

        reads = 0

        def refresh(self) -> JobHandle:
            self.reads += 1
            if self.reads == 1:
                self.retry()
                found = super().refresh()
                quiet.change(job_id, end)
                return found
            return super().refresh()

    with Client(quiet_url) as client:
        job = Retried(client.connection, client.job(job_id).body)
        with pytest.raises(JobFailed, match="cancelled"):
            job.wait()
        assert job.reads == 2


def test_a_watch_gives_up_when_the_service_stays_away(relay: Relay, running: Running) -> None:
    with Client(relay.url) as client:
        job = client.job(running.trained)
        relay.close()
        with pytest.raises(Unreachable):
            list(job.watch(patience_s=0.1))


def test_waiting_has_an_end(client: Client) -> None:
    job = client.submit(long_spec().model_dump(mode="json"), priority=-1)
    with pytest.raises(TimeoutError, match=job.id):
        job.wait(0.5)
    assert job.state in ("queued", "running")
    assert job.cancel().body.cancel_requested
    with pytest.raises(JobFailed, match="cancelled") as caught:
        job.wait(60)
    assert (caught.value.state, caught.value.reason) == ("cancelled", "cancelled")


def test_labels_change_only_in_the_version_that_was_read(client: Client) -> None:
    job = client.submit(TINY).wait(60)
    stale = client.job(job.id)
    assert job.set_labels({"a": "1"}).body.labels == {"a": "1"}
    with pytest.raises(ApiError) as caught:
        stale.set_labels({"b": "2"})
    assert caught.value.problem.status == 412
    assert stale.refresh().body.labels == {"a": "1"}


@pytest.mark.parametrize("spread", [False, True])
def test_every_form_of_samples_can_be_fetched(trained: JobHandle, spread: bool) -> None:
    array = trained.samples(5, seed=3, spread=spread)
    assert array.shape == (5, 8, 8)
    assert trained.samples_png(5, seed=3, spread=spread).startswith(b"\x89PNG")
    assert b'"samples"' in trained.samples_bytes("json", 5, seed=3, spread=spread)


def test_a_checkpoint_is_chosen_by_its_id(trained: JobHandle) -> None:
    first, *_, last = trained.checkpoints()
    assert np.array_equal(trained.samples(4), trained.samples(4, checkpoint=last.id))
    assert not np.array_equal(trained.samples(4), trained.samples(4, checkpoint=first.id))


def test_reconstructions_can_be_fetched(trained: JobHandle) -> None:
    found = trained.reconstructions(5, seed=3)
    assert found.x.shape == found.y.shape == found.g.shape == (5, 8, 8)
    assert found.z.shape == (5, 4)
    assert not np.array_equal(found.x, found.y)
    assert trained.reconstructions_png(5, seed=3).startswith(b"\x89PNG")
    assert b'"noise_scale"' in trained.reconstructions_bytes("json", 5, seed=3)
    first = trained.checkpoints()[0].id
    assert not np.array_equal(trained.reconstructions(5, 3, first).g, found.g)


def test_interpolations_can_be_fetched(trained: JobHandle) -> None:
    found = trained.interpolations(3, seed=2, steps=4)
    assert (found.g.shape, found.z.shape, found.x) == ((3, 4, 8, 8), (3, 4, 4), None)
    between = trained.interpolations(3, seed=2, steps=4, between="data", path="linear")
    assert between.x is not None
    assert np.array_equal(between.x.reshape(6, 8, 8), trained.reconstructions(6, seed=2).x)
    png = trained.interpolations_png(3, seed=2, steps=4, between="data")
    assert png.startswith(b"\x89PNG")
    assert b'"steps":4' in trained.interpolations_bytes("json", 3, seed=2, steps=4)


def test_artifacts_are_listed_and_fetched(trained: JobHandle, tmp_path: Path) -> None:
    grid = next(found for found in trained.artifacts() if found.name.startswith("grids/"))
    # A store in a folder has no addresses: with redirect the service sends the file itself.
    for redirect in (False, True):
        path = trained.download_artifact(grid.name, tmp_path / "grid.png", redirect=redirect)
        assert grid.digest == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    with pytest.raises(ApiError):
        trained.download_artifact("grids/nope.png", tmp_path / "nope.png")
    assert list(tmp_path.iterdir()) == [path]


def test_a_film_strip_and_metrics_can_be_fetched(trained: JobHandle) -> None:
    assert trained.filmstrip_png([1, 3], n=2).startswith(b"\x89PNG")
    assert trained.filmstrip_png(n=2).startswith(b"\x89PNG")
    assert set(trained.metrics(["loss_nats"])) == {"loss_nats"}
    assert len(trained.metrics(max_points=2)["loss_nats"]) == 2


def test_fetched_weights_give_the_same_samples_without_the_service(
    trained: JobHandle, tmp_path: Path
) -> None:
    path = trained.download_weights(tmp_path / "weights.safetensors", "best")
    best = [c for c in trained.checkpoints() if c.is_best][-1]
    assert best.digest == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    offline = Generator.load(path).sample(6, seed=2)
    assert np.array_equal(offline, trained.samples(6, seed=2, checkpoint="best"))
    assert list(tmp_path.iterdir()) == [path]


def test_a_download_that_breaks_off_leaves_no_file(
    relay: Relay, running: Running, tmp_path: Path
) -> None:
    with Client(relay.url) as client:
        body = client.job(running.trained).body
    relay.cut_after = 2000
    with Client(relay.url) as client, pytest.raises(Unreachable):
        JobHandle(client.connection, body).download_weights(tmp_path / "weights")
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_was_never_there_cannot_be_downloaded(
    client: Client, trained: JobHandle, tmp_path: Path
) -> None:
    with pytest.raises(ApiError):
        trained.download_weights(tmp_path / "weights", "nope")
    assert list(tmp_path.iterdir()) == []


def answering(content: bytes) -> tuple[str, Callable[[], None]]:
    """A server that is not ours, and answers one request with these bytes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        near, _ = listener.accept()
        with near:
            near.recv(65_536)
            near.sendall(content)
        listener.close()

    thread = threading.Thread(target=answer)
    thread.start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}", thread.join


def test_an_answer_of_something_else_is_still_an_error() -> None:
    url, join = answering(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\nno")
    with Client(url) as client, pytest.raises(ApiError, match="status 502") as caught:
        client.datasets()
    join()
    assert caught.value.problem.retryable


def test_the_digits_of_the_fixture_are_what_was_submitted(trained: JobHandle) -> None:
    assert trained.body.name == DIGITS["name"]
    assert trained.state == "succeeded"
