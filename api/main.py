"""The composition root: settings -> stores -> cluster -> services -> application."""

import contextlib
import gc
import hashlib
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from filelock import FileLock, Timeout

from api.app import Services, create_app
from api.broadcast import Broadcast
from service.access.access import Access
from service.access.first import prepare
from service.attempts import Attempts
from service.catalogue import Catalogue
from service.cluster.base import Cluster, ClusterUnavailable
from service.cluster.ray_cluster import RayCluster
from service.datasets import Datasets
from service.errors import ConfigurationError
from service.explaining import Explaining
from service.feed import Feed
from service.forking import Forks
from service.health import Health
from service.jobstore import JobStore, database_file, is_in_memory
from service.leadership import Alone, Leadership, Leading
from service.log_lines import write_log
from service.logs import Logs
from service.measured_store import MeasuredStore
from service.measures import Measures
from service.mixing import Mixing
from service.preparing import try_out
from service.relay import Relay
from service.results import Results
from service.retention import Deletions, KeepingRules
from service.sampling import Sampling
from service.settings import Settings, ray_environment
from service.studies.answers import Answers
from service.studies.presets import Presets
from service.studies.promoting import Promotions
from service.studies.running import Studies
from service.studies.submitting import Studying
from service.studies.trying import Trying
from service.sweep import Sweep
from service.sweeper import Sweeper
from service.tracing import OFF, Tracing, tracing_of
from service.training import Training
from service.watcher import Watcher
from workers.artifacts import ArtifactStore, open_store
from workers.decoding import use_one_thread
from workers.errors import StoreError
from workers.intake import Limits

log = logging.getLogger(__name__)

CONNECTION_GRACE_S = 2  # open event streams are cut off after this when the service stops


@contextlib.contextmanager
def running_services(
    settings: Settings,
    jobs: JobStore,
    artifacts: ArtifactStore,
    cluster: Cluster,
    name: str = "",
    measures: Measures | None = None,
    tracing: Tracing = OFF,
) -> Iterator[Services]:
    """All services over the given stores and cluster, with the watcher at work.

    ``name`` is this service's for people, where several share a database; ``measures`` has what is
    measured of the stores.
    """
    measures = measures or Measures()
    feed = Feed()
    leadership = Leadership(jobs, name, settings.lease_s) if jobs.is_shared else None
    leading: Leading = leadership or Alone()
    # What only the leader writes goes through this one.
    led = jobs if leadership is None else jobs.fenced(leadership.number)
    attempts = Attempts(
        led,
        artifacts,
        cluster,
        feed,
        settings.datasets_dir,
        cancel_grace_s=settings.cancel_grace_s,
        start_timeout_s=settings.start_timeout_s,
        fid_weights=settings.fid_weights,
        measures=measures,
        tracing=tracing,
    )
    results = Results(jobs, artifacts)
    datasets = Datasets(
        jobs,
        artifacts,
        settings.datasets_dir,
        settings.incoming_dir,
        Limits(max_decoded_bytes=settings.max_decoded_bytes),
        settings.max_upload_bytes,
    )
    datasets.clean()
    studies = Studies(led, cluster, attempts, Trying(led, datasets, artifacts))
    watcher = Watcher(led, cluster, attempts, studies, leads=leading.leads)
    cluster.listen(spoken=watcher.hear, ended=watcher.hear_end)
    training = Training(
        jobs, artifacts, cluster, feed, datasets, watcher.wake, settings.fid_weights, tracing
    )
    sampling = Sampling(
        results, artifacts, settings.datasets_dir, settings.sample_cache_bytes, measures
    )
    rules = KeepingRules(settings.retention)
    deletions = Deletions(jobs, artifacts, feed, rules, sampling.forget, led)
    sweep = Sweep(jobs, artifacts, datasets, settings.datasets_dir, settings.sweep_grace_s)
    sweeper = Sweeper(deletions, sweep, settings.sweep_interval_s, leading.leads)
    logs = Logs(jobs, artifacts)
    health = Health(jobs, artifacts, cluster, watcher, feed, sweeper, leading)
    forks, answers = Forks(jobs, artifacts, training, results), Answers(jobs)
    services = Services(
        training=training,
        forks=forks,
        results=results,
        logs=logs,
        sampling=sampling,
        mixing=Mixing(results, sampling),
        datasets=datasets,
        catalogue=Catalogue(),
        feed=feed,
        broadcast=Broadcast(results, feed),
        health=health,
        explaining=Explaining(jobs, cluster, logs, health.report),
        deletions=deletions,
        sweeper=sweeper,
        studying=Studying(jobs, training, deletions, feed, watcher.wake),
        answers=answers,
        promotions=Promotions(jobs, training, forks, answers),
        presets=Presets(datasets),
        access=Access(jobs, settings.audit_keep_s),
        measures=measures,
        tracing=tracing,
    )
    with contextlib.ExitStack() as stack:
        if leadership is not None:
            relay = Relay(jobs, feed)
            leadership.start(watcher.wake)
            stack.callback(leadership.stop)  # last, as what ends before may still have to write
            relay.start()
            stack.callback(relay.stop)
        watcher.start()
        stack.callback(watcher.stop, settings.stop_grace_s)
        sweeper.start()
        stack.callback(sweeper.stop)
        stack.callback(datasets.close)
        yield services


def serve(settings: Settings) -> None:
    """Run the service in the foreground until SIGINT or SIGTERM.

    Raises ConfigurationError if it cannot start with these settings.
    """
    write_log(settings.log_format)
    measures, tracing = Measures(), tracing_of(settings)
    with (
        contextlib.closing(tracing),
        _locks(settings),
        contextlib.closing(_listen(settings)) as listener,
    ):
        try:
            artifacts = MeasuredStore(open_store(settings.artifacts), measures.storage)
            try_out(artifacts)
        except StoreError as error:
            raise ConfigurationError(f"artifact store: {error}") from error
        jobs = JobStore.open(settings.database, measures.database.seen)
        try:
            prepare(settings, jobs, _say)
            _serve(settings, jobs, artifacts, listener, measures, tracing)
        finally:
            jobs.close()


def _say(text: str) -> None:
    """Tell who started the service what no log may hold."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _serve(
    settings: Settings,
    jobs: JobStore,
    artifacts: ArtifactStore,
    listener: socket.socket,
    measures: Measures,
    tracing: Tracing,
) -> None:
    use_one_thread()
    cluster = _cluster(settings, jobs)
    # uvicorn raises the signal again that ended it; by then the services must be wound down
    # first, so the signal's default must not end this process.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    try:
        port = listener.getsockname()[1]
        name = f"{socket.gethostname()}:{port}"
        with running_services(
            settings, jobs, artifacts, cluster, name, measures, tracing
        ) as services:
            host = listener.getsockname()[0]
            address = f"[{host}]" if ":" in host else host
            log.info("spreadtrain serves on http://%s:%d (documents at /docs)", address, port)
            answer(services, settings, listener)
            log.info("stopping: running jobs publish a checkpoint")
    finally:
        cluster.close()
        log.info("stopped")


def answer(services: Services, settings: Settings, listener: socket.socket) -> None:
    """Answer requests until SIGINT or SIGTERM."""
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(services, settings),
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=CONNECTION_GRACE_S,
        )
    )
    gc.collect()  # what is left is there to the end, and full collections need not look through it
    gc.freeze()
    server.run(sockets=[listener])


def _cluster(settings: Settings, jobs: JobStore) -> Cluster:
    """The Ray cluster of the settings, started or joined."""
    ray_environment(joining=bool(settings.ray_address))
    # Services that share a database find one another's executors, however each writes its URL.
    database = jobs.installation() if jobs.is_shared else settings.database
    installation = hashlib.sha256(f"{database} {settings.artifacts}".encode())
    cluster = RayCluster(
        settings.ray_address,
        settings.data_dir,
        settings.cpus,
        namespace=f"spreadtrain-{installation.hexdigest()[:16]}",
        log_format=settings.log_format,
    )
    try:
        cluster.start()
    except ClusterUnavailable as error:
        raise ConfigurationError(str(error)) from error
    return cluster


@contextlib.contextmanager
def _locks(settings: Settings) -> Iterator[None]:
    """Refuse a second service on the same data folder, SQLite file or artifact folder: two
    watchers would end each other's attempts. And one whose jobs would be lost at its end."""
    if is_in_memory(settings.database):
        raise ConfigurationError(
            "SPREADTRAIN_DATABASE_URL is a database in memory, which loses all jobs when the "
            "service stops; leave it empty for one in the data folder, or give one like "
            "sqlite:////folder/file.db or postgresql+psycopg://user:password@host:5432/database"
        )
    folders = settings.local_folders()
    if (database := database_file(settings.database)) is not None:
        folders.append((database.parent, f"{database.name}.lock"))
    with contextlib.ExitStack() as stack:
        for folder, name in folders:
            stack.enter_context(_lock(folder, name))
        yield


@contextlib.contextmanager
def _lock(folder: Path, name: str) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / name)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigurationError(
            f"another service is running on {folder}; stop it, or choose other folders "
            "(SPREADTRAIN_DATA_DIR)"
        ) from error
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be used: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def _listen(settings: Settings) -> socket.socket:
    """Take the port before anything is started, so that a taken one is known at once."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # Named as TCP, or asyncio leaves Nagle's algorithm on: answers in two writes then take 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; "
            "choose another port (SPREADTRAIN_PORT)"
        ) from error
    return listener
