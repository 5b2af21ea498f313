"""What must hold after a strike, whatever was hit: read from the store, the service and /proc."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from api.bodies import JobBody
from api.client import JobHandle
from service.jobs import TRANSITIONS, JobState
from tests.chaos.cells import Must
from tests.chaos.stage import Stage
from workers.artifacts import ArtifactStore, attempt_prefix, outcome_key
from workers.events import (
    RECORD,
    CheckpointRecord,
    FirstStepRecord,
    Outcome,
    ProgressRecord,
    StartedRecord,
    read_outcome,
)

# Between the moment that an attempt is fenced and its last word: what was on its way already.
IN_FLIGHT_S = 1.5


@dataclass
class AttemptFacts:
    """What the store says of one attempt."""

    steps: int = 0
    resumed_from: int = 0
    published: list[int] = field(default_factory=list)
    first_step_at: datetime | None = None
    last_word_at: datetime | None = None
    outcome: Outcome | None = None


@dataclass
class Faults:
    """What must be empty; ``needless`` are attempts that a strike should not have cost."""

    lost: list[str] = field(default_factory=list)
    false_states: list[str] = field(default_factory=list)
    two_at_once: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    recomputed: list[str] = field(default_factory=list)
    needless: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(vars(self).values())

    def sentences(self) -> list[str]:
        """All of them, each with its kind."""
        return [f"{kind}: {fault}" for kind, faults in vars(self).items() for fault in faults]


def attempts_of(store: ArtifactStore, job: JobHandle) -> list[AttemptFacts]:
    """The job's attempts, as their own records tell."""
    found = []
    for attempt in job.body.attempts:
        facts = AttemptFacts()
        prefix = attempt_prefix(job.id, attempt.number)
        for stored in store.list(f"{prefix}/events"):
            for line in store.get(stored.key).splitlines():
                record = RECORD.validate_json(line)
                facts.last_word_at = record.at
                match record:
                    case StartedRecord():
                        facts.resumed_from = record.resumed_from_step or 0
                    case FirstStepRecord():
                        facts.first_step_at = record.at
                    case ProgressRecord():
                        facts.steps = max(facts.steps, record.step)
                    case CheckpointRecord():
                        facts.published.append(record.step)
        if store.exists(outcome_key(prefix)):
            facts.outcome = read_outcome(store.get(outcome_key(prefix)))
        found.append(facts)
    return found


def judge_history(job: JobBody, events: Sequence[tuple[str, str]], faults: Faults) -> None:
    """Every change of state that the job's followers were told of is one that may happen, and
    none of them is a failure. ``events`` are (state, reason)."""
    before: str | None = None
    for state, reason in events:
        if before is None and state != "queued":
            faults.false_states.append(f"its history begins with {state}")
        changes = before is not None and before != state
        if changes and JobState(state) not in TRANSITIONS[JobState(before or state)]:
            faults.false_states.append(f"{before} became {state}")
        if state == "failed":
            faults.false_states.append(f"failed with {reason}: {job.message}")
        before = state
    if before != job.state:
        faults.false_states.append(f"its history ends with {before}, but it is {job.state}")


def judge_attempts(job: JobBody, facts: Sequence[AttemptFacts], faults: Faults) -> int:
    """No attempt speaks after its successor began, none is without an end; the steps that were
    computed twice, the most of one strike, are at most those since the last checkpoint."""
    recomputed = 0
    for number, attempt in enumerate(facts, 1):
        if attempt.outcome is None:
            faults.false_states.append(f"attempt {number} has no outcome")
    for number, (attempt, successor) in enumerate(pairwise(facts), 1):
        if attempt.last_word_at and successor.first_step_at:
            late_s = (attempt.last_word_at - successor.first_step_at).total_seconds()
            if late_s > 0:
                faults.two_at_once.append(f"attempt {number} spoke {late_s:.1f} s after the next")
        if attempt.outcome is not None and attempt.last_word_at is not None:
            late_s = (attempt.last_word_at - attempt.outcome.at).total_seconds()
            if late_s > IN_FLIGHT_S:
                faults.two_at_once.append(f"attempt {number} spoke {late_s:.1f} s after its end")
        if successor.first_step_at is None:
            continue
        last = max(attempt.published, default=attempt.resumed_from)
        if successor.resumed_from < last:
            faults.recomputed.append(
                f"attempt {number + 1} went on from {successor.resumed_from}, not from {last}"
            )
        recomputed = max(recomputed, attempt.steps - successor.resumed_from)
    if job.state == "succeeded":
        last_outcome = facts[-1].outcome
        if last_outcome is None or last_outcome.reason != "completed":
            faults.false_states.append(f"succeeded on {last_outcome}")
        total = job.progress.total_steps if job.progress is not None else None
        # A strike after the last checkpoint leaves its successor nothing to publish.
        last = facts[-1].published[-1] if facts[-1].published else facts[-1].resumed_from
        published = {step for attempt in facts for step in attempt.published}
        if last != total or last not in published:
            faults.lost.append(f"ended at {last} of {total} steps, published: {published}")
    return recomputed


def judge_must(job: JobBody, must: Must, faults: Faults) -> None:
    """It ended as it must, and took no more attempts than it may."""
    if job.state not in must.ends:
        faults.false_states.append(f"{job.state}, not {' or '.join(must.ends)}")
    if len(job.attempts) > 1 + must.more_attempts:
        reasons = [f"{attempt.reason}: {attempt.message}" for attempt in job.attempts]
        faults.needless.append(f"{len(reasons)} attempts: {'; '.join(reasons)}")


def judge_weights(stage: Stage, job: JobHandle, faults: Faults) -> None:
    """Every checkpoint that is listed can be fetched, and is what its digest says."""
    for checkpoint in job.checkpoints():
        target = stage.folder / "weights.safetensors"
        job.download_weights(target, checkpoint.id)
        target.unlink()
    if job.state == "succeeded" and not job.checkpoints():
        faults.lost.append("it succeeded without a checkpoint")
