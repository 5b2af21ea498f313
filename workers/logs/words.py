"""What an attempt says of itself, in lines of its log."""

import math
import os
import socket
from typing import assert_never

from workers.checkpoint import Versions
from workers.data import Dataset
from workers.events import (
    ArtifactRecord,
    CheckpointRecord,
    CheckpointRemovedRecord,
    FirstStepRecord,
    LogRecord,
    MetricsRecord,
    NoticeRecord,
    ProgressRecord,
    Record,
    StartedRecord,
)
from workers.failures import Ending
from workers.logs.lines import Level
from workers.spec import Resources

HELD_OUT = "held_out_"
_ORDERLY = (
    *("completed", "stopped_early", "converged", "iteration_limit"),
    *("interrupted", "cancelled", "paused", "service_stopped"),
)


def greeting(job_id: str, attempt: int, resources: Resources) -> str:
    """The first line: what runs where, with what."""
    here = Versions()
    return (
        f"{job_id} attempt {attempt} on {socket.gethostname()}, process {os.getpid()}: "
        f"spreadtrain {here.spreadtrain}, Python {here.python}, torch {here.torch}; "
        f"{resources.workers} worker(s) of {resources.cpus_per_worker} core(s) and "
        f"{resources.gpus_per_worker} GPU(s)"
    )


def loaded(data: Dataset) -> str:
    """Which data there are, and how they are split."""
    return (
        f"data loaded: {data.info.name}, {len(data.train)} to train on and {len(data.held_out)} "
        f"held out, {data.info.digest}"
    )


def farewell(ending: Ending) -> tuple[Level, str]:
    """The last line."""
    level: Level = "info" if ending.reason in _ORDERLY else "error"
    return level, f"ended: {ending.reason}: {ending.message}"


def sentence(record: Record) -> tuple[Level, str] | None:
    """Level and text of what a record says; None for those that have no line of their own."""
    match record:
        case StartedRecord():
            return "info", (
                f"training begins: {record.total_steps} steps, {record.steps_per_epoch} an epoch"
            )
        case FirstStepRecord():
            return "info", f"first step done: step {record.step}"
        case MetricsRecord():
            return _metrics(record)
        case CheckpointRecord():
            best = ", the best so far" if record.is_best else ""
            return "info", (
                f"checkpoint {record.id} published: epoch {record.epoch:g}, weights of "
                f"{record.size_bytes} bytes, {record.digest}{best}"
            )
        case NoticeRecord():
            return "warning", f"{record.code}: {record.message}"
        case ArtifactRecord() | CheckpointRemovedRecord() | ProgressRecord() | LogRecord():
            return None
        case _:
            assert_never(record)


def _metrics(record: MetricsRecord) -> tuple[Level, str] | None:
    """One line for each evaluation; what comes every second in between is in the metrics."""
    if not any(name.startswith(HELD_OUT) for name in record.values):
        return None
    shown = ("loss_nats", "data_per_s", "log_evidence_nats", "residual")
    values = " ".join(
        f"{name}={_short(value)}"
        for name, value in record.values.items()
        if name in shown or name.startswith(HELD_OUT)
    )
    return "info", f"epoch {record.epoch:g} step {record.step}: {values}"


def _short(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else str(value)
