"""Runs one attempt: drives train(), publishes what it yields, and always leaves an outcome.

Where an attempt has several workers, worker 0 does so with ``execute``, and the others, with
``follow``, compute their shares and publish nothing but the reason should they fail.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict

from workers.artifacts import ArtifactStore, attempt_prefix, open_store, outcome_key
from workers.beginning import (
    Beginning,
    Origin,
    Tensors,
    beginning,
    notices_of,
    require_same,
    usable,
)
from workers.checkpoint import Versions
from workers.data import Dataset, load
from workers.device import device_of
from workers.errors import (
    ArtifactExists,
    ClaimLost,
    PeerLost,
    StoreAway,
    StoreError,
    VersionMismatch,
)
from workers.events import (
    Artifact,
    Checkpoint,
    Event,
    Finished,
    FirstStepRecord,
    Grid,
    LogRecord,
    Metrics,
    MetricsRecord,
    Notice,
    NoticeRecord,
    Outcome,
    OutcomeReason,
    ProgressRecord,
    StartedRecord,
    Tick,
    read_outcome,
)
from workers.failures import STOPPED, Ending, failed, finished
from workers.kinds import plan, train
from workers.ledger import Ledger, patiently
from workers.logs import AttemptLog, PeerLogs, farewell, greeting, loaded, local_log_path
from workers.parallel import Peers, Seat
from workers.publish import KeptCheckpoint, Publisher
from workers.quality import Shelf
from workers.ranks import at_most_every, cause_of_loss, has_failed, leave_failure
from workers.spec import JobSpec
from workers.tracing import attempt_span, stage

StudyStop = Literal["stopped_by_study", "posterior_collapse", "dead_latents"]
StopReason = (
    Literal["cancelled", "paused", "interrupted", "service_stopped", "time_limit"] | StudyStop
)
MISSED_INTERVAL_S = 0.5  # between two looks at the store while other workers are waited for


class Run(BaseModel):
    """One attempt as it crosses to the process that executes it.

    ``resume_from`` is the prefix of the checkpoint to go on from, ``resume_else`` that of the one
    before, should it be damaged, and without any ``origin`` is where a fork begins; ``earlier`` are
    the checkpoints of the job's earlier attempts, whose keeping passes to this one; ``wall_s`` the
    seconds that the job's time limit leaves; ``until_epoch`` where its study lets it pause;
    ``fid_weights`` where the nodes find the weights of InceptionV3; ``tracing`` where spans go, and
    ``traceparent`` what they continue.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    job_id: str
    attempt: int
    spec: JobSpec
    artifacts_uri: str
    cache_dir: Path
    fid_weights: str = ""
    resume_from: str | None = None
    resume_else: str | None = None
    origin: Origin | None = None
    earlier: tuple[KeptCheckpoint, ...] = ()
    wall_s: float | None = None
    until_epoch: int | None = None
    tracing: str = ""
    traceparent: str | None = None
    versions: Versions = Versions()

    @property
    def prefix(self) -> str:
        """Prefix of every key that the attempt writes."""
        return attempt_prefix(self.job_id, self.attempt)

    @property
    def shelf(self) -> Shelf:
        """Where the weights of feature extractors are."""
        return Shelf(fid_weights=self.fid_weights, cache_dir=self.cache_dir)


class StopFlag:
    """Asks a run to end soon, from any thread; the first reason stays."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reason: OutcomeReason | None = None

    def request(self, reason: OutcomeReason) -> None:
        """Ask for the end."""
        with self._lock:
            self._reason = self._reason or reason

    @property
    def reason(self) -> OutcomeReason | None:
        """Why the run is to end, or None."""
        return self._reason


ALONE = Seat()
Meet = Callable[[Callable[[], None]], Peers]  # waits for the others, and looks meanwhile


class _StoppedWaiting(Exception):
    """The run is to end, and the other workers are not there yet."""


def execute(
    run: Run, stop: StopFlag, seat: Seat = ALONE, *, whole_process: bool = False
) -> Outcome:
    """Train until the end, a stop or an error, and write the attempt's outcome; as worker 0.

    ``whole_process`` says that this process works on nothing else, so that everything that it
    writes to standard output and standard error belongs into the attempt's log.

    Returns the outcome that stands in the store: this run's own, or the one that the service
    wrote because it had given the attempt up. Raises StoreError if none could be written.
    """
    with attempt_span(run.tracing, run.traceparent, run.job_id, run.attempt, seat.rank) as span:
        outcome = _execute(run, stop, seat, whole_process=whole_process)
        span.set(spreadtrain__reason=outcome.reason, spreadtrain__step=outcome.step)
        if outcome.detail is not None:
            span.failed(outcome.message)
        return outcome


def _execute(run: Run, stop: StopFlag, seat: Seat, *, whole_process: bool) -> Outcome:
    store = open_store(run.artifacts_uri)
    ledger = Ledger(store, run.prefix)
    path = local_log_path(run.cache_dir, run.job_id, run.attempt)
    said = AttemptLog(store, run.prefix, path, ledger.append, whole_process=whole_process)
    ledger.on_record = said.record
    others = PeerLogs(store, run.prefix, seat.size, ledger.append)
    with closing(said), closing(others), ExitStack() as connections:  # others end with these
        meet = partial(_meet, seat, stop, connections)
        try:
            said.say("info", greeting(run.job_id, run.attempt, run.spec.resources))
            lead = _lead(run, stop, store, ledger, said, others, meet)
            ending = finished(lead, stop.reason)
        except ClaimLost:
            ledger.abandon()
            return read_outcome(store.get(outcome_key(run.prefix)))
        except PeerLost as error:
            ending = cause_of_loss(store, run.prefix, seat.size, error)
        except Exception as error:  # noqa: BLE001 - recorded: a failed training is data on the job
            ending = failed(error)
        said.say(*farewell(ending))
        if ending.detail is not None:
            said.say("error", ending.detail)
        others.close()
        said.close()  # before the outcome, behind which an attempt publishes nothing
        return _conclude(run, store, ledger, ending)


def follow(run: Run, stop: StopFlag, seat: Seat, *, whole_process: bool = False) -> None:
    """Train as a worker other than 0, until all do or an error, which is told to worker 0.

    It has a log of its own, which worker 0 announces; ``whole_process`` as for ``execute``.
    Raises StoreError if the error could not be told.
    """
    with attempt_span(run.tracing, run.traceparent, run.job_id, run.attempt, seat.rank):
        _follow(run, stop, seat, whole_process=whole_process)


def _follow(run: Run, stop: StopFlag, seat: Seat, *, whole_process: bool) -> None:
    store = open_store(run.artifacts_uri)
    path = local_log_path(run.cache_dir, run.job_id, run.attempt, seat.rank)
    said = AttemptLog(store, run.prefix, path, _unsaid, rank=seat.rank, whole_process=whole_process)
    # Worker 0 looks for the reason when the connections are closed.
    with closing(said), ExitStack() as connections:
        try:
            said.say("info", greeting(run.job_id, run.attempt, run.spec.resources))
            _assist(run, stop, store, said, partial(_meet, seat, stop, connections))
        except (ClaimLost, _StoppedWaiting):
            return
        except Exception as error:  # noqa: BLE001 - recorded, and worker 0 makes it the outcome
            ending = failed(error)
            said.say(*farewell(ending))
            if ending.detail is not None:
                said.say("error", ending.detail)
            said.close()  # before worker 0 writes the outcome
            leave_failure(store, run.prefix, seat.rank, ending)


def _unsaid(record: LogRecord) -> None:
    """A worker other than 0 writes no events: worker 0 finds what it has shipped."""


def _lead(
    run: Run,
    stop: StopFlag,
    store: ArtifactStore,
    ledger: Ledger,
    said: AttemptLog,
    others: PeerLogs,
    meet: Meet,
) -> Finished:
    """Consume train() to its end; everything that it yields is published when this returns."""
    with stage("prepare"):
        data, begun_at = _prepare(run, store)
    said.say("info", loaded(data))
    if run.resume_from is None and run.origin is not None:
        said.say("info", f"begins with the {run.origin.start} of {run.origin.prefix}")

    def look_for_failures() -> None:
        ledger.check()
        if has_failed(store, run.prefix):
            raise PeerLost

    step = _step_of(begun_at)
    try:
        peers = meet(at_most_every(MISSED_INTERVAL_S, look_for_failures))
    except _StoppedWaiting:
        return Finished(step, 0.0, "interrupted", STOPPED["interrupted"])
    require_same(begun_at, peers, device_of(run.spec.resources))
    _announce(run, data, begun_at, ledger)
    earlier = usable(run.earlier, begun_at)
    with (
        stage("train") as span,
        Publisher(store, run.prefix, run.spec, data.info, ledger, earlier) as publisher,
    ):
        span.set(spreadtrain__trainer=run.spec.trainer.kind)
        events = train(
            run.spec,
            data,
            resume=begun_at.tensors,
            should_stop=_stop_asked(run, stop),
            until_epoch=run.until_epoch,
            peers=peers,
            shelf=run.shelf,
        )
        del begun_at  # whose file takes up room while it is mapped, also once it is thinned out
        finished = _publish_all(events, step, ledger, publisher)
        others.finish()
        return finished


def _step_of(begun_at: Beginning) -> int:
    return 0 if begun_at.tensors is None else int(begun_at.tensors["step"])


def _announce(run: Run, data: Dataset, begun_at: Beginning, ledger: Ledger) -> None:
    """Tell that training begins, and where."""
    ledger.append(_started(run, data, begun_at.tensors))
    on_cpu = not run.spec.resources.gpus_per_worker
    for notice in notices_of(begun_at, _step_of(begun_at), on_cpu=on_cpu):
        ledger.append(notice)


def _stop_asked(run: Run, stop: StopFlag) -> Callable[[], bool]:
    """Whether the run is to end, by its time limit too, which counts from here."""
    begun = time.monotonic()

    def should_stop() -> bool:
        if run.wall_s is not None and time.monotonic() - begun > run.wall_s:
            stop.request("time_limit")
        return stop.reason is not None

    return should_stop


def _publish_all(
    events: Iterator[Event], begun_step: int, ledger: Ledger, publisher: Publisher
) -> Finished:
    """Publish the events of a training that begins after a step, and note its first one."""
    is_first = True
    for event in events:
        ledger.check()
        if isinstance(event, Finished):
            return event
        _publish(event, ledger, publisher)
        if is_first and not isinstance(event, Notice) and event.step > begun_step:
            ledger.append(FirstStepRecord(at=datetime.now(UTC), step=event.step))
            is_first = False
    raise AssertionError("train() ended without Finished")


def _assist(run: Run, stop: StopFlag, store: ArtifactStore, said: AttemptLog, meet: Meet) -> None:
    """Compute this worker's shares to the end."""
    with stage("prepare"):
        data, begun_at = _prepare(run, store)
    said.say("info", loaded(data))

    def look_for_the_end() -> None:
        if store.exists(outcome_key(run.prefix)):
            raise ClaimLost

    look = at_most_every(MISSED_INTERVAL_S, look_for_the_end)
    peers = meet(look)
    require_same(begun_at, peers, device_of(run.spec.resources))

    def should_stop() -> bool:
        return stop.reason is not None

    with stage("train"):
        events = train(
            run.spec,
            data,
            resume=begun_at.tensors,
            should_stop=should_stop,
            until_epoch=run.until_epoch,
            peers=peers,
        )
        del begun_at  # as in _lead
        for _ in events:
            pass


def _prepare(run: Run, store: ArtifactStore) -> tuple[Dataset, Beginning]:
    """What every worker needs: data, and the train state to go on from."""
    here = Versions()
    if not here.agree(run.versions):
        raise VersionMismatch(
            f"This node runs {here!r}, the service {run.versions!r}; "
            "install the same versions on every node."
        )
    torch.set_num_threads(run.spec.resources.cpus_per_worker)
    # A store that is away is waited for; one that this node may not use says so now.
    if patiently(lambda: store.exists(outcome_key(run.prefix)), StoreAway):
        raise ClaimLost
    data = patiently(lambda: load(run.spec.dataset, run.cache_dir, store))
    resumable = [prefix for prefix in (run.resume_from, run.resume_else) if prefix is not None]
    return data, patiently(lambda: beginning(store, run.spec, resumable, run.origin))


def _meet(seat: Seat, stop: StopFlag, connections: ExitStack, look: Callable[[], None]) -> Peers:
    """Wait for the other workers, as long as nothing speaks against it."""

    def attend() -> None:
        if stop.reason is not None:
            raise _StoppedWaiting
        look()

    return connections.enter_context(seat.take(attend))


def _publish(
    event: Tick | Metrics | Checkpoint | Grid | Artifact | Notice,
    ledger: Ledger,
    publisher: Publisher,
) -> None:
    """Publish one event of the training, and note how far it is."""
    now = datetime.now(UTC)
    if not isinstance(event, Notice):
        ledger.progress(ProgressRecord(at=now, step=event.step, epoch=event.epoch))
    match event:
        case Tick():
            pass
        case Metrics():
            ledger.append(
                MetricsRecord(at=now, step=event.step, epoch=event.epoch, values=dict(event.values))
            )
        case Checkpoint():
            publisher.checkpoint(event)
        case Grid():
            name = f"grids/{event.step:08d}.png"
            publisher.file(name, event.png, "image/png", event.step, event.epoch)
        case Artifact():
            publisher.file(event.name, event.content, event.media_type, event.step, event.epoch)
        case Notice():
            ledger.append(NoticeRecord(at=now, code=event.code, message=event.message))


def _started(run: Run, data: Dataset, resume: Tensors | None) -> StartedRecord:
    planned = plan(run.spec, len(data.train), resume or {})
    return StartedRecord(
        at=datetime.now(UTC),
        pid=os.getpid(),
        host=socket.gethostname(),
        total_steps=planned.total_steps,
        steps_per_epoch=planned.steps_per_epoch,
        resumed_from_step=planned.step or None,
        resumed_from_epoch=planned.epoch if planned.step else None,
    )


def _conclude(run: Run, store: ArtifactStore, ledger: Ledger, ending: Ending) -> Outcome:
    """Flush the events, then write the outcome unless the service has already written one."""
    key = outcome_key(run.prefix)
    try:
        chunks = ledger.close()
        outcome = Outcome(
            reason=ending.reason,
            message=ending.message,
            step=max(ending.step, ledger.last_step),
            at=datetime.now(UTC),
            chunks=chunks,
            detail=ending.detail,
        )
        # What no waiting helps against was told at the start, before anything was written.
        about = StoreError if ledger.written else StoreAway
        patiently(lambda: store.put(key, outcome.model_dump_json().encode()), about)
    except (ArtifactExists, ClaimLost):
        return read_outcome(patiently(lambda: store.get(key)))
    return outcome
