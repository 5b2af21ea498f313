"""What must hold in the database after all strikes, read past the service: from the tables, the
artifact store, and what the database has written down itself."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise
from typing import Any

from sqlalchemy import Engine, select

from service.jobs import FINAL_STATES, TRANSITIONS, JobState
from service.jobstore.schema import (
    ATTEMPTS,
    EVENTS,
    IDEMPOTENCY_KEYS,
    JOBS,
    POINTS,
    SERIES,
)
from tests.chaos.leaders import audit
from tests.chaos.leaders.customers import Promises
from workers.artifacts import ArtifactStore, attempt_prefix, chunk_key
from workers.events import RECORD, MetricsRecord, ProgressRecord, Record

Point = tuple[str, int, int]  # metric, attempt, step
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class Verdict:
    """Faults by kind, which must be none, and what they were looked for in."""

    lost: list[str] = field(default_factory=list)
    ended_twice: list[str] = field(default_factory=list)
    sequence: list[str] = field(default_factory=list)
    points: list[str] = field(default_factory=list)
    foreign_writes: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def sentences(self) -> list[str]:
        """All faults, each with its kind."""
        kinds = {name: found for name, found in vars(self).items() if name != "counts"}
        return [f"{kind}: {fault}" for kind, faults in kinds.items() for fault in faults]


def judge(engine: Engine, store: ArtifactStore, promises: Promises) -> Verdict:
    """Look at everything, once all jobs have ended and nothing is struck any more."""
    verdict = Verdict()
    with engine.connect() as connection:
        jobs = {row.id: row for row in connection.execute(select(JOBS))}
        keys = {row.key: row.job_id for row in connection.execute(select(IDEMPOTENCY_KEYS))}
        events = _by_job(connection.execute(select(EVENTS).order_by(EVENTS.c.job_id, EVENTS.c.seq)))
        attempts = _by_job(
            connection.execute(select(ATTEMPTS).order_by(ATTEMPTS.c.job_id, ATTEMPTS.c.number))
        )
        joined = select(SERIES.c.job_id, SERIES.c.name, POINTS).join(
            POINTS, POINTS.c.series_id == SERIES.c.id
        )
        points = _by_job(connection.execute(joined.order_by(SERIES.c.job_id)))
    judge_promises(promises, {job.id: job.state for job in jobs.values()}, keys, verdict)
    for job_id, job in jobs.items():
        told = events.get(job_id, [])
        judge_sequence(job_id, [event.seq for event in told], job.last_seq, verdict)
        judge_history(job_id, [_state(each) for each in told if each.kind == "state"], verdict)
        stored = {
            (point.name, point.attempt, point.step): point.value for point in points.get(job_id, [])
        }
        for attempt in attempts.get(job_id, []):
            records = _records(store, job_id, attempt.number, attempt.next_chunk)
            own = [event for event in told if event.attempt == attempt.number]
            judge_events(f"{job_id}/{attempt.number}", own, records, verdict)
            for name, step, value in _points(records):
                at = (name, attempt.number, step)
                verdict.counts["points"] += 1
                if stored.pop(at, "none") != value:
                    verdict.points.append(f"{job_id}: {at} is not as it was written")
            if attempt.ended_us is None:
                verdict.ended_twice.append(f"{job_id}: attempt {attempt.number} has no end")
        verdict.points += [f"{job_id}: {at} was written by no attempt" for at in stored]
        verdict.counts["attempts"] += len(attempts.get(job_id, []))
        verdict.counts["events"] += len(told)
    taken, written = audit.leases(engine), audit.writes(engine)
    verdict.foreign_writes = audit.foreign(taken, written)
    verdict.counts.update(
        jobs=len(jobs),
        promised=len(promises.jobs),
        cancels=len(promises.cancelled),
        leases=len(taken),
        writes=len(written),
        beyond_the_end=sum(write.left_s < 0 for write in written),
        repeated_attempts=sum(max(job.attempt - 1, 0) for job in jobs.values()),
    )
    return verdict


def judge_promises(
    promises: Promises, states: Mapping[str, str], keys: Mapping[str, str], verdict: Verdict
) -> None:
    """Each acknowledged job is there, once, and has come to the end that was asked for."""
    for key, job_id in promises.jobs.items():
        is_cancelled = job_id in promises.cancelled
        allowed = {"succeeded", "cancelled"} if is_cancelled else {"succeeded"}
        if keys.get(key) != job_id:
            verdict.lost.append(f"key {key} is of {keys.get(key)}, and was promised as {job_id}")
        if states.get(job_id) not in allowed:
            verdict.lost.append(f"{job_id} was promised, and is {states.get(job_id)}")
    for job_id in states.keys() - set(promises.jobs.values()):
        verdict.ended_twice.append(f"{job_id} was made beside another one of its key")


def judge_sequence(job_id: str, numbers: Sequence[int], last: int, verdict: Verdict) -> None:
    """A job's events have the numbers from 1 to the last one."""
    if list(numbers) != list(range(1, last + 1)):
        verdict.sequence.append(f"{job_id} has {len(numbers)} events, numbered to {last}")


def judge_history(job_id: str, states: Sequence[str], verdict: Verdict) -> None:
    """Its changes of state are such as may happen, and it ended once."""
    changes = [state for state, _ in groupby(states)]
    ends = [state for state in changes if JobState(state) in FINAL_STATES]
    if changes[:1] != ["queued"] or len(ends) != 1 or changes[-1] != ends[0]:
        verdict.ended_twice.append(f"{job_id} was {', '.join(changes)}")
    for before, after in pairwise(changes):
        if JobState(after) not in TRANSITIONS[JobState(before)]:
            verdict.ended_twice.append(f"{job_id}: {before} became {after}")


def judge_events(
    attempt: str, stored: Sequence[Any], records: Sequence[Record], verdict: Verdict
) -> None:
    """What an attempt wrote, was taken in once, in its order and as it was."""
    taken = [(each.at_us, each.kind, each.data) for each in stored if each.kind != "state"]
    spoken = [
        (
            (record.at - _EPOCH) // timedelta(microseconds=1),
            record.kind,
            record.model_dump_json(exclude={"at", "kind"}),
        )
        for record in records
        if not isinstance(record, ProgressRecord)
    ]
    if taken != spoken:
        verdict.sequence.append(
            f"{attempt} has said {len(spoken)} things, and {len(taken)} were taken in"
        )


def _records(store: ArtifactStore, job_id: str, attempt: int, chunks: int) -> list[Record]:
    """What the attempt said in its first chunks."""
    prefix = attempt_prefix(job_id, attempt)
    contents = (store.get(chunk_key(prefix, chunk)) for chunk in range(chunks))
    return [RECORD.validate_json(line) for each in contents for line in each.splitlines()]


def _points(records: Sequence[Record]) -> list[tuple[str, int, float | None]]:
    """The points of an attempt: of two for one step the later one; NaN is kept as None."""
    found: dict[tuple[str, int], float | None] = {}
    for record in records:
        if isinstance(record, MetricsRecord):
            for name, value in record.values.items():
                found[name, record.step] = value if value == value else None
    return [(name, step, value) for (name, step), value in found.items()]


def _state(event: Any) -> str:
    return str(json.loads(event.data)["state"])


def _by_job(rows: Any) -> dict[str, list[Any]]:
    return {job_id: list(of_job) for job_id, of_job in groupby(rows, lambda row: str(row.job_id))}
