"""An attempt's records as lines of its log."""

import math
from typing import assert_never

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
from workers.logs.lines import Level

HELD_OUT = "held_out_"


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
    shown = ("loss_nats", "data_per_s")
    values = " ".join(
        f"{name}={_short(value)}"
        for name, value in record.values.items()
        if name in shown or name.startswith(HELD_OUT)
    )
    return "info", f"epoch {record.epoch:g} step {record.step}: {values}"


def _short(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else str(value)
