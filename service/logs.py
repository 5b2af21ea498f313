"""What the attempts of a job said, read from the chunks that its ``log`` events name."""

import contextlib
import logging
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from service.errors import FieldError, InvalidQuery, NotReady
from service.jobs import FINAL_STATES, Attempt, Job, JobEvent
from service.jobstore import JobStore
from workers.artifacts import ArtifactStore, attempt_prefix, chunk_key, log_end_key, log_key
from workers.errors import ArtifactExists, ArtifactNotFound, ClaimLost, StoreError
from workers.events import LogRecord, Outcome
from workers.logs import LogLine, decode_chunk, gap, local_log_path, salvage

__all__ = ["Cursor", "LogLine", "LogPage", "Logs", "SaidLine", "rescue_log"]

log = logging.getLogger(__name__)

KINDS = ("log",)
PAGE_BYTES = 4 << 20  # of chunks read for one answer; at least one chunk is
LINES_OF_A_PAGE = 10_000
ROWS_AT_ONCE = 200
ROWS_OF_A_PAGE = 2000
REMOVED = "were removed to make room for later ones"


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a reader is: behind the event ``seq``, and ``lines`` lines of the next chunk."""

    seq: int = 0
    lines: int = 0

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """From its text, or from an event's number; raises InvalidQuery."""
        found = re.fullmatch(r"(\d{1,16})(?:-(\d{1,9}))?", text, re.ASCII)
        if found is None:
            problem = "must be next_after of an answer before, or an event's number"
            raise InvalidQuery("not a cursor", (FieldError("/query/after", problem),))
        return cls(int(found[1]), int(found[2] or 0))

    def __str__(self) -> str:
        """As :meth:`parse` reads it."""
        return f"{self.seq}-{self.lines}"


@dataclass(frozen=True, slots=True)
class SaidLine:
    """A line, and who said it."""

    attempt: int
    rank: int
    line: LogLine


@dataclass(frozen=True, slots=True)
class LogPage:
    """Lines in their order; ``has_more`` says that there are more behind them now, ``is_ended``
    that there never will be."""

    lines: tuple[SaidLine, ...]
    cursor: Cursor
    has_more: bool
    is_ended: bool


class Logs:
    """Reads logs. Every method raises JobNotFound for an unknown job, NotReady without a store."""

    def __init__(self, jobs: JobStore, artifacts: ArtifactStore) -> None:
        self._jobs = jobs
        self._artifacts = artifacts

    def version(self, job_id: str) -> int:
        """Rises with everything that can change an answer."""
        return self._jobs.last_seq(job_id)

    def read(
        self,
        job_id: str,
        attempt: int | None,
        after: Cursor,
        limit: int,
        rank: int | None = None,
    ) -> LogPage:
        """At most ``limit`` lines behind the cursor, of one attempt and one worker or of all."""
        # The state is read first: what a final job has said, is all that it has.
        is_final = self._jobs.get(job_id).state in FINAL_STATES
        page = _Page(limit)
        removed: dict[int, dict[str, object]] = {}
        cursor, rows_read = after, 0
        while rows := self._jobs.events(job_id, cursor.seq, ROWS_AT_ONCE, KINDS, attempt):
            for event in rows:
                if page.is_full or rows_read == ROWS_OF_A_PAGE:
                    return LogPage(page.lines(), cursor, has_more=True, is_ended=False)
                if rank not in (None, event.data["rank"]):
                    rows_read, cursor = rows_read + 1, Cursor(event.seq)
                    continue
                if event.attempt not in removed:
                    removed[event.attempt] = self._newest(job_id, event.attempt)
                said = self._said(job_id, event, removed[event.attempt])
                taken = page.add(event, said[cursor.lines :])
                rows_read += 1
                if taken < len(said) - cursor.lines:
                    cursor = Cursor(cursor.seq, cursor.lines + taken)
                    return LogPage(page.lines(), cursor, has_more=True, is_ended=False)
                cursor = Cursor(event.seq)
        return LogPage(page.lines(), cursor, has_more=False, is_ended=is_final)

    def tail(
        self, job_id: str, attempt: int | None, lines: int, rank: int | None = None
    ) -> LogPage:
        """The last lines, of one attempt and one worker or of all; fewer where that is more than a
        page."""
        found, size, first = 0, 0, None
        while rows := self._jobs.last_events(job_id, KINDS, ROWS_AT_ONCE, first, attempt):
            for event in rows:
                first = event.seq
                if rank not in (None, event.data["rank"]):
                    continue
                size += int(event.data["size_bytes"])
                if found >= lines or (size > PAGE_BYTES and found):
                    return self._from(job_id, attempt, Cursor(event.seq), lines, rank)
                # A gap is a line too, which the row does not count.
                found += int(event.data["lines"])
        return self._from(job_id, attempt, Cursor(), lines, rank)

    def _from(
        self, job_id: str, attempt: int | None, start: Cursor, lines: int, rank: int | None
    ) -> LogPage:
        """The last lines of everything behind the cursor."""
        last: tuple[SaidLine, ...] = ()
        page = self.read(job_id, attempt, start, LINES_OF_A_PAGE, rank)
        while True:
            last = (last + page.lines)[-lines:] if lines else ()
            if not page.has_more:
                return replace(page, lines=last)
            page = self.read(job_id, attempt, page.cursor, LINES_OF_A_PAGE, rank)

    def lines_of(self, job_id: str, event: JobEvent) -> list[LogLine]:
        """The lines of one ``log`` event; a chunk that is gone is a gap."""
        return self._said(job_id, event, {})

    def _newest(self, job_id: str, attempt: int) -> dict[str, object]:
        """What the attempt's newest event says of chunks that were removed."""
        rows = self._jobs.last_events(job_id, KINDS, 1, attempt=attempt)
        return dict(rows[0].data) if rows else {}

    def _said(self, job_id: str, event: JobEvent, newest: dict[str, object]) -> list[LogLine]:
        rank, chunk = int(event.data["rank"]), int(event.data["chunk"])
        lines, size_bytes = int(event.data["lines"]), int(event.data["size_bytes"])
        absent = [gap(event.at, lines or None, size_bytes or None, REMOVED)]
        removed = newest.get("removed")
        if isinstance(removed, list) and newest.get("rank") == rank:
            first, stop = removed
            if first <= chunk < stop:
                return absent
        key = log_key(attempt_prefix(job_id, event.attempt), rank, chunk)
        try:
            content = self._artifacts.get(key)
        except ArtifactNotFound:
            return absent
        except StoreError as error:
            raise NotReady("the artifact store does not answer; try again soon") from error
        try:
            return decode_chunk(content)
        except ValueError:
            return [gap(event.at, lines, size_bytes, "are unreadable")]


class _Page:
    """Lines up to a number, and chunks up to a size; gaps side by side become one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lines: list[SaidLine] = []
        self._size_bytes = 0

    @property
    def is_full(self) -> bool:
        return len(self._lines) >= self._limit or self._size_bytes >= PAGE_BYTES

    def lines(self) -> tuple[SaidLine, ...]:
        return tuple(self._lines)

    def add(self, event: JobEvent, said: Sequence[LogLine]) -> int:
        """Take lines; how many were taken."""
        rank = int(event.data["rank"])
        if len(said) == 1 and said[0].level == "gap":
            return self._add_gap(SaidLine(event.attempt, rank, said[0]))
        self._size_bytes += int(event.data["size_bytes"])
        taken = said[: self._limit - len(self._lines)]
        self._lines += [SaidLine(event.attempt, rank, line) for line in taken]
        return len(taken)

    def _add_gap(self, new: SaidLine) -> int:
        last = self._lines[-1] if self._lines else None
        if last is not None and _is_same_gap(last, new):
            before, line = last.line, new.line
            merged = gap(
                before.at,
                (before.lines or 0) + (line.lines or 0),
                (before.size_bytes or 0) + (line.size_bytes or 0),
                REMOVED,
            )
            self._lines[-1] = replace(last, line=merged)
        else:
            self._lines.append(new)
        return 1


def _is_same_gap(a: SaidLine, b: SaidLine) -> bool:
    same_process = (a.attempt, a.rank) == (b.attempt, b.rank)
    return same_process and all(
        said.line.level == "gap" and said.line.text.endswith(REMOVED) for said in (a, b)
    )


def rescue_log(
    jobs: JobStore,
    artifacts: ArtifactStore,
    cache_dir: Path,
    job: Job,
    attempt: Attempt,
    outcome: Outcome,
) -> None:
    """Ship what an attempt's processes have left unshipped on this machine, now that they are gone.

    Their chunks are announced in the attempt's own event log, in its place, and taken in from
    there. Raises StoreError.
    """
    prefix = attempt_prefix(attempt.job_id, attempt.number)
    workers = job.spec.resources.workers
    lost = {rank: _is_lost(artifacts, prefix, attempt, outcome, rank) for rank in range(workers)}
    paths = {rank: local_log_path(cache_dir, attempt.job_id, attempt.number, rank) for rank in lost}
    # Of the others worker 0 may have left chunks without an event.
    ranks = [rank for rank in lost if rank > 0 or lost[rank] or paths[rank].exists()]
    announced = _announced(jobs, attempt, frozenset(ranks))
    records: list[LogRecord] = []
    rescued: list[int] = []
    for rank in ranks:
        try:
            records += salvage(
                artifacts,
                prefix,
                paths[rank],
                announced=announced.get(rank, 0),
                is_lost=lost[rank],
                rank=rank,
            )
            rescued.append(rank)
        except (OSError, ClaimLost) as error:
            log.warning("%s: the rest of the log of worker %d: %s", prefix, rank, error)
    if records:
        content = "".join(record.model_dump_json() + "\n" for record in records).encode()
        _append_chunk(artifacts, prefix, attempt.next_chunk, content)
    for rank in rescued:
        if rank > 0 and lost[rank]:  # or the next look would miss the file that is gone
            with contextlib.suppress(ArtifactExists):
                artifacts.put(log_end_key(prefix, rank), b"{}")
        try:
            paths[rank].unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s stays: %s", paths[rank], error.strerror)


def _is_lost(
    artifacts: ArtifactStore, prefix: str, attempt: Attempt, outcome: Outcome, rank: int
) -> bool:
    """Whether a worker has ended without saying that all of its log is shipped."""
    if rank > 0:
        return not artifacts.exists(log_end_key(prefix, rank))
    return outcome.chunks is None and attempt.host not in (None, socket.gethostname())


def _announced(jobs: JobStore, attempt: Attempt, ranks: frozenset[int]) -> Mapping[int, int]:
    """How many chunks of each worker are announced, where there are any."""
    found: dict[int, int] = {}
    before = None
    while not ranks <= found.keys():
        rows = jobs.last_events(attempt.job_id, KINDS, ROWS_AT_ONCE, before, attempt.number)
        if not rows:
            break
        for event in rows:
            found.setdefault(int(event.data["rank"]), _behind(event.data))
        before = rows[-1].seq
    return found


def _behind(data: Mapping[str, Any]) -> int:
    """The number of the chunk after that of an event, or after the hole that it stands for."""
    is_hole = not data["size_bytes"]
    return int(data["removed"][1]) if is_hole else int(data["chunk"]) + 1


def _append_chunk(artifacts: ArtifactStore, prefix: str, chunk: int, content: bytes) -> None:
    """Write the next chunk of events; the process wrote up to its end, which may be later."""
    while True:
        try:
            artifacts.put(chunk_key(prefix, chunk), content)
        except ArtifactExists:
            chunk += 1
        else:
            return
