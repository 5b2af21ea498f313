"""One run of one cell: bring a job into its phase, strike, repair, and judge."""

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from api.client import ApiError, ClientError, JobHandle
from service.cluster.processes import is_running
from tests.chaos.cells import Cell, Phase, must
from tests.chaos.judge import (
    AttemptFacts,
    Faults,
    attempts_of,
    judge_attempts,
    judge_history,
    judge_must,
    judge_weights,
)
from tests.chaos.leftovers import count_groups, count_orphans, judge_keys, unfinished
from tests.chaos.phases import LOOK_INTERVAL_S, Missed, Scene, bring
from tests.chaos.stage import Stage
from tests.e2e.processes import wait_until
from workers.artifacts import ArtifactStore

RECOVERY_S = 240.0
REPAIR_INTERVAL_S = 2.0


@dataclass
class Result:
    """What one strike did."""

    cell: Cell
    seed: int
    faults: Faults
    stopped_s: float = 0.0
    ended: str = ""
    attempts: int = 0
    recomputed_steps: int = 0
    recovery_s: float | None = None
    debris: int = 0
    missed: bool = False
    reasons: list[str | None] = field(default_factory=list)


def strike(stage: Stage, cell: Cell, seed: int) -> Result:
    """Run a cell once; the stage is whole again afterwards."""
    chance = random.Random(f"{cell}{seed}")
    result = Result(cell, seed, Faults(), cell.stop_s(seed))
    try:
        stage.repair()
        scene = bring(stage, cell.phase, chance)
        _strike(stage, cell, scene, result)
    except Missed as miss:
        result.missed, result.ended = True, str(miss)
        _forget(stage)
    except (AssertionError, ClientError) as fault:
        result.faults.lost.append(f"{type(fault).__name__}: {fault}")
        _forget(stage)
    return result


def _strike(stage: Stage, cell: Cell, scene: Scene, result: Result) -> None:
    store = stage.store()
    before, begun = stage.census(), unfinished(store)
    struck_at = datetime.now(UTC)
    result.missed = not _hit(stage, cell, scene.job, result.stopped_s)
    repairs = Repairs(stage)
    _settle(repairs, scene, cell.phase)
    # Whatever was stopped is whole again before it is judged.
    job = _wait_for_state(repairs, scene.job.id, must(cell, result.stopped_s).ends)
    _judge(stage, store, job, result, struck_at)
    count_orphans(stage, before, job, result.faults)
    count_groups(stage, result.faults)
    result.debris = judge_keys(stage, store, job, begun, result.faults)
    job.refresh().delete()


class Repairs:
    """An operator who looks now and then, as some things end only a while after the strike."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._at = float("-inf")

    def look(self) -> None:
        """Start again what is gone, if it is time to look."""
        if time.monotonic() - self._at > REPAIR_INTERVAL_S:
            self.stage.repair()
            self._at = time.monotonic()


def _hit(stage: Stage, cell: Cell, job: JobHandle, stop_s: float) -> bool:
    """Strike; returns whether there was anything to hit."""
    if cell.action == "cut":
        assert stage.relay is not None
        stage.relay.cut()
        time.sleep(stop_s)
        stage.relay.mend()
        return True
    try:
        pids = stage.pids(cell.victim, job)
    except ClientError:
        pids = ()
    number = signal.SIGKILL if cell.action == "kill" else signal.SIGSTOP
    hit = [pid for pid in pids if _send(pid, number)]
    if cell.action == "stop" and hit:
        time.sleep(stop_s)
        for pid in hit:
            _send(pid, signal.SIGCONT)
    elif cell.action == "kill":
        wait_until(lambda: not any(is_running(pid) for pid in hit), 20, f"{hit} to end")
    return bool(hit)


def _send(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _settle(repairs: Repairs, scene: Scene, phase: Phase) -> None:
    """Ask for what follows in the phase."""
    stage = repairs.stage
    if (blocker := scene.blocker) is not None:
        _asked(repairs, lambda: stage.job(blocker.id).cancel())
    if phase == "pausing":
        _wait_for_state(repairs, scene.job.id, ("paused", "succeeded"))
        _asked(repairs, lambda: _resume(stage.job(scene.job.id)))


def _resume(job: JobHandle) -> None:
    if job.state == "paused":
        job.resume()


def _asked(repairs: Repairs, ask: Callable[[], object]) -> None:
    """Ask the service, over the seconds in which it is not whole."""
    give_up_at = time.monotonic() + RECOVERY_S
    while time.monotonic() < give_up_at:
        repairs.look()
        try:
            ask()
        except ClientError as error:
            if isinstance(error, ApiError) and not error.problem.retryable:
                raise AssertionError(f"the service refused: {error}") from error
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"the service did not answer within {RECOVERY_S:.0f} s")


def _wait_for_state(repairs: Repairs, job_id: str, expected: tuple[str, ...]) -> JobHandle:
    last = "nothing was heard of it"
    give_up_at = time.monotonic() + RECOVERY_S
    while time.monotonic() < give_up_at:
        repairs.look()
        try:
            job = repairs.stage.job(job_id)
        except ClientError as error:
            if isinstance(error, ApiError) and not error.problem.retryable:
                raise AssertionError(f"the service answered {error}") from error
        else:
            last = f"{job.state} ({job.body.reason}): {job.body.message}"
            if job.state in expected:
                return job
            assert job.state not in ("failed", "cancelled", "succeeded"), last
        time.sleep(LOOK_INTERVAL_S)
    raise AssertionError(f"it did not end within {RECOVERY_S:.0f} s: {last}")


def _judge(
    stage: Stage, store: ArtifactStore, job: JobHandle, result: Result, struck_at: datetime
) -> None:
    facts = attempts_of(store, job)
    events = [
        (str(event.data["state"]), str(event.data["reason"]))
        for event in job.watch()
        if event.kind == "state"
    ]
    result.ended = job.state
    result.attempts = len(facts)
    result.reasons = [attempt.reason for attempt in job.body.attempts]
    judge_history(job.body, events, result.faults)
    result.recomputed_steps = judge_attempts(job.body, facts, result.faults)
    judge_weights(stage, job, result.faults)
    judge_must(job.body, must(result.cell, result.stopped_s), result.faults)
    result.recovery_s = _recovery_s(job, facts, struck_at)


def _recovery_s(job: JobHandle, facts: list[AttemptFacts], struck_at: datetime) -> float | None:
    """From the strike to the first step that was done after it; None where nothing was lost."""
    again = [attempt.first_step_at for attempt in facts[1:] if attempt.first_step_at is not None]
    after = [at for at in again if at > struck_at]
    if job.state == "cancelled" and job.body.ended_at is not None:
        after = [job.body.ended_at]
    return (after[0] - struck_at).total_seconds() if after else None


def _forget(stage: Stage) -> None:
    """Clear the stage of jobs that did not come to their end."""
    try:
        repairs = Repairs(stage)
        repairs.look()
        for state in ("running", "queued", "paused"):
            for summary in list(stage.service.client.jobs(state=state)):
                _asked(repairs, stage.job(summary.id).cancel)
                _wait_for_state(repairs, summary.id, ("cancelled", "succeeded"))
    except (ClientError, AssertionError) as fault:
        print(f"    the stage could not be cleared: {fault}")  # the next strike says so as well
