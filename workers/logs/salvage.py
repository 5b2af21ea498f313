"""What a process that is gone had written and not shipped, shipped in its place."""

import contextlib
from datetime import UTC, datetime
from pathlib import Path

from workers.artifacts import ArtifactStore, log_key
from workers.errors import ArtifactNotFound
from workers.events import LogRecord
from workers.logs.gathering import unannounced
from workers.logs.lines import decode_chunk, end_of
from workers.logs.local import LocalLog
from workers.logs.shipping import Place, Shipper

SALVAGED_BYTES = 512 << 10  # the end of what waited; the watcher has others to look after
LOST = "were lost: the process ended on another machine before it could ship them"


def salvage(
    store: ArtifactStore, prefix: str, path: Path, *, announced: int, is_lost: bool, rank: int = 0
) -> list[LogRecord]:
    """Ship the rest of a process's local file; the records of all chunks from ``announced`` on.

    ``is_lost`` says that the process was lost on another machine: where it has left no file here, a
    gap stands for its last lines. To do it again ships nothing twice. The file stays: whoever calls
    removes it once the records are stored. Raises StoreError, ClaimLost where somebody
    else ships the same, and OSError where the disk does.
    """
    records, place = _unannounced(store, prefix, rank, announced)
    try:
        file = LocalLog.existing(path)
    except FileNotFoundError:
        # Without a chunk of it, the process may never have begun to write.
        if is_lost and place.chunk > 0 and not _ends_with_gap(store, prefix, rank, place):
            absent = LocalLog(path, -1)
            shipper = _shipper(store, prefix, rank, absent, records, place)
            shipper.ship_gap(datetime.now(UTC), LOST)
        return records
    try:
        written_at = file.written_at()
        shipper = _shipper(store, prefix, rank, file, records, place)
        shipper.skip_backlog(SALVAGED_BYTES)
        while shipper.ship(written_at, is_last=True):
            pass
    finally:
        file.close()
    return records


def _shipper(
    store: ArtifactStore,
    prefix: str,
    rank: int,
    file: LocalLog,
    records: list[LogRecord],
    place: Place,
) -> Shipper:
    return Shipper(store, prefix, rank, file, records.append, place, until_outcome=False)


def _unannounced(
    store: ArtifactStore, prefix: str, rank: int, announced: int
) -> tuple[list[LogRecord], Place]:
    """The chunks that are in the store without a record, and where the process stopped."""
    records: list[LogRecord] = []
    chunk, position = announced, 0
    if announced:
        with contextlib.suppress(ArtifactNotFound, ValueError):
            position = end_of(store.get(log_key(prefix, rank, announced - 1)))
    for record, content in unannounced(store, prefix, rank, announced):
        records.append(record)
        chunk = record.chunk + 1 if record.removed is None else record.removed[1]
        with contextlib.suppress(ValueError):
            position = end_of(content)
    return records, Place(chunk, position)


def _ends_with_gap(store: ArtifactStore, prefix: str, rank: int, place: Place) -> bool:
    try:
        lines = decode_chunk(store.get(log_key(prefix, rank, place.chunk - 1)))
    except (ArtifactNotFound, ValueError):
        return False
    return bool(lines) and lines[-1].level == "gap"
