"""Runs one attempt: drives train(), publishes what it yields, and always leaves an outcome."""

import os
import socket
import threading
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict

from workers.artifacts import ArtifactStore, attempt_prefix, open_store, outcome_key
from workers.beginning import Origin, Tensors, beginning
from workers.checkpoint import Versions
from workers.data import Dataset, DatasetInfo, load
from workers.errors import (
    ArtifactExists,
    ArtifactNotFound,
    ClaimLost,
    DataError,
    Diverged,
    PeerLost,
    SpecMismatch,
    StoreError,
    VersionMismatch,
    WorkerError,
)
from workers.events import (
    Checkpoint,
    Finished,
    FirstStepRecord,
    Grid,
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
from workers.ledger import Ledger
from workers.logs import AttemptLog, local_log_path
from workers.publish import KeptCheckpoint, Publisher
from workers.spec import TrainSpec
from workers.train import train

StopReason = Literal["cancelled", "paused", "interrupted", "service_stopped"]


class Run(BaseModel):
    """One attempt as it crosses to the process that executes it.

    ``resume_from`` is the prefix of the job's own checkpoint to go on from, ``origin`` where a fork
    begins that has none yet; ``earlier`` the checkpoints of
    the job's earlier attempts, whose keeping passes to this one; ``wall_s`` the seconds that the
    job's time limit leaves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    job_id: str
    attempt: int
    spec: TrainSpec
    artifacts_uri: str
    cache_dir: Path
    resume_from: str | None = None
    origin: Origin | None = None
    earlier: tuple[KeptCheckpoint, ...] = ()
    wall_s: float | None = None
    versions: Versions = Versions()

    @property
    def prefix(self) -> str:
        """Prefix of every key that the attempt writes."""
        return attempt_prefix(self.job_id, self.attempt)


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


def execute(run: Run, stop: StopFlag, *, whole_process: bool = False) -> Outcome:
    """Train until the end, a stop or an error, and write the attempt's outcome.

    ``whole_process`` says that this process works on nothing else, so that everything that it
    writes to standard output and standard error belongs into the attempt's log.

    Returns the outcome that stands in the store: this run's own, or the one that the service
    wrote because it had given the attempt up. Raises StoreError if none could be written.
    """
    store = open_store(run.artifacts_uri)
    ledger = Ledger(store, run.prefix)
    path = local_log_path(run.cache_dir, run.job_id, run.attempt)
    said = AttemptLog(store, run.prefix, path, ledger.append, whole_process=whole_process)
    ledger.on_record = said.record
    try:
        return _execute(run, stop, store, ledger, said)
    finally:
        said.close()


def _execute(
    run: Run, stop: StopFlag, store: ArtifactStore, ledger: Ledger, said: AttemptLog
) -> Outcome:
    step = 0
    detail = None
    reason: OutcomeReason
    try:
        said.say("info", _hello(run))
        finished = _train(run, stop, store, ledger, said)
        step, reason, message = finished.step, finished.reason, finished.message
        if reason == "interrupted" and stop.reason is not None:
            reason, message = stop.reason, _STOPPED[stop.reason]
    except ClaimLost:
        ledger.abandon()
        return read_outcome(store.get(outcome_key(run.prefix)))
    except WorkerError as error:
        reason, message = _worker_failure(error), str(error)
        step = error.step if isinstance(error, Diverged) else step
    except Exception as error:  # noqa: BLE001 - recorded: a failed training is data on the job
        if _is_want_of_memory(error):
            reason = "out_of_memory"
            message = "The worker ran out of memory; use a smaller batch or network."
        else:
            reason = "internal_error"
            message = (
                f"The trainer failed with {type(error).__name__}; this is a defect of spreadtrain."
            )
            detail = traceback.format_exc()
    said.say("info" if reason in _ORDERLY else "error", f"ended: {reason}: {message}")
    if detail is not None:
        said.say("error", detail)
    said.close()  # before the outcome, behind which an attempt publishes nothing
    return _conclude(run, store, ledger, reason, message, step, detail)


_ORDERLY = ("completed", "stopped_early", "interrupted", "cancelled", "paused", "service_stopped")
_STOPPED: dict[OutcomeReason, str] = {
    "cancelled": "Cancelled by request; the last checkpoint is kept.",
    "paused": "Paused by request, with a checkpoint.",
    "time_limit": "The time limit (limits.max_wall_s) is used up; the last checkpoint is kept.",
    "service_stopped": "The service was stopped; the job goes on from its last checkpoint when the "
    "service is started again.",
    "interrupted": "Interrupted; the job goes on from its last checkpoint.",
}


def _is_want_of_memory(error: Exception) -> bool:
    """Whether memory was asked for in vain; on the CPU torch says so in words alone."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def _worker_failure(error: WorkerError) -> OutcomeReason:
    match error:
        case Diverged():
            return "diverged"
        case SpecMismatch():
            return "invalid"
        case VersionMismatch():
            return "version_mismatch"
        case DataError():
            return "data_unavailable"
        case ArtifactNotFound() | ArtifactExists():
            return "internal_error"
        case StoreError():
            return "store_unreachable"
        case PeerLost():
            return "worker_lost"
        case _:
            return "internal_error"


def _train(
    run: Run, stop: StopFlag, store: ArtifactStore, ledger: Ledger, said: AttemptLog
) -> Finished:
    """Consume train() to its end; everything that it yields is published when this returns."""
    here = Versions()
    if run.versions != here:
        raise VersionMismatch(
            f"This node runs {here!r}, the service {run.versions!r}; "
            "install the same versions on every node."
        )
    torch.set_num_threads(run.spec.resources.cpus_per_worker)
    if store.exists(outcome_key(run.prefix)):  # and a store that this node cannot use says so now
        raise ClaimLost
    data = load(run.spec.dataset, run.cache_dir, store)
    said.say(
        "info",
        f"data loaded: {data.info.name}, {len(data.train)} to train on and {len(data.held_out)} "
        f"held out, {data.info.digest}",
    )
    resume = beginning(store, run.resume_from, run.origin)
    if run.resume_from is not None:
        said.say("info", f"resumed from {run.resume_from}")
    elif run.origin is not None:
        said.say("info", f"begins with the {run.origin.start} of {run.origin.prefix}")
    ledger.append(_started(run, data, resume))
    begun = time.monotonic()

    def should_stop() -> bool:
        if run.wall_s is not None and time.monotonic() - begun > run.wall_s:
            stop.request("time_limit")
        return stop.reason is not None

    first = True
    with Publisher(store, run.prefix, run.spec, data.info, ledger, run.earlier) as publisher:
        for event in train(run.spec, data, resume=resume, should_stop=should_stop):
            ledger.check()
            now = datetime.now(UTC)
            if not isinstance(event, Notice):
                ledger.progress(ProgressRecord(at=now, step=event.step, epoch=event.epoch))
            match event:
                case Tick():
                    pass
                case Metrics():
                    ledger.append(
                        MetricsRecord(
                            at=now, step=event.step, epoch=event.epoch, values=dict(event.values)
                        )
                    )
                case Checkpoint():
                    publisher.checkpoint(event)
                case Grid():
                    name = f"grids/{event.step:08d}.png"
                    publisher.file(name, event.png, "image/png", event.step, event.epoch)
                case Notice():
                    ledger.append(NoticeRecord(at=now, code=event.code, message=event.message))
                case Finished():
                    return event
            if first and not isinstance(event, Notice):
                ledger.append(FirstStepRecord(at=now, step=event.step))
                first = False
    raise AssertionError("train() ended without Finished")


def _hello(run: Run) -> str:
    """The first line of the log: what runs where, with what."""
    here, wanted = Versions(), run.spec.resources
    return (
        f"{run.job_id} attempt {run.attempt} on {socket.gethostname()}, process {os.getpid()}: "
        f"spreadtrain {here.spreadtrain}, Python {here.python}, torch {here.torch}; "
        f"{wanted.workers} worker(s) of {wanted.cpus_per_worker} core(s) and "
        f"{wanted.gpus_per_worker} GPU(s)"
    )


def _started(run: Run, data: Dataset, resume: Tensors | None) -> StartedRecord:
    trainer = run.spec.trainer
    steps_per_epoch = -(-data.train.shape[0] // trainer.batch_size)
    return StartedRecord(
        at=datetime.now(UTC),
        pid=os.getpid(),
        host=socket.gethostname(),
        total_steps=trainer.epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        resumed_from_step=None if resume is None else int(resume["step"]) or None,
    )


def _conclude(
    run: Run,
    store: ArtifactStore,
    ledger: Ledger,
    reason: OutcomeReason,
    message: str,
    step: int,
    detail: str | None,
) -> Outcome:
    """Flush the events, then write the outcome unless the service has already written one."""
    key = outcome_key(run.prefix)
    try:
        chunks = ledger.close()
        outcome = Outcome(
            reason=reason,
            message=message,
            step=max(step, ledger.last_step),
            at=datetime.now(UTC),
            chunks=chunks,
            detail=detail,
        )
        store.put(key, outcome.model_dump_json().encode())
    except (ArtifactExists, ClaimLost):
        return read_outcome(store.get(key))
    return outcome


def warm_up() -> None:
    """Train on a few invented pictures and forget them.

    The first use of torch's layers and optimisers and of the PNG encoder costs a process more
    than a second; paid here, the first step of a real attempt comes at once.
    """
    spec = TrainSpec.model_validate(
        {
            "dataset": {"name": "warm-up"},
            "trainer": {
                "kind": "delta_vae",
                "network": {"kind": "mlp", "hidden": [4], "latent_dim": 1},
                "epochs": 1,
                "batch_size": 4,
            },
        }
    )
    info = DatasetInfo(
        name="warm-up",
        title="",
        shape=(4, 4),
        count=20,
        is_image=True,
        digest="sha256:" + "0" * 64,
        available=True,
        detail="",
    )
    train_split, held_out = torch.zeros(20, 16, dtype=torch.uint8).split((18, 2))
    for _ in train(spec, Dataset(info, train_split, held_out)):
        pass
