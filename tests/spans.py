"""Spans as processes have written them into a folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Written:
    """One span: ids without their ``0x``, and the process that wrote it."""

    name: str
    trace: str
    id: str
    parent: str | None
    pid: int
    role: str
    attributes: dict[str, Any]
    status: str


def spans_in(folder: Path) -> list[Written]:
    """All spans of all processes, in the order of their ends."""
    found = []
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_text().splitlines():
            span = json.loads(line)
            about, parent = span["resource"]["attributes"], span["parent_id"]
            written = Written(
                name=span["name"],
                trace=span["context"]["trace_id"].removeprefix("0x"),
                id=span["context"]["span_id"].removeprefix("0x"),
                parent=None if parent is None else parent.removeprefix("0x"),
                pid=about["process.pid"],
                role=about["spreadtrain.role"],
                attributes=span["attributes"],
                status=span["status"]["status_code"],
            )
            found.append((span["end_time"], written))
    return [written for _, written in sorted(found, key=lambda pair: pair[0])]


def only(spans: list[Written], name: str) -> Written:
    """The one span of that name."""
    (span,) = (span for span in spans if span.name == name)
    return span
