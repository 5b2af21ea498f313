"""One run of one cell: bring a job into its phase, strike, repair, and judge."""

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psutil

from api.client import ApiError, ClientError, JobHandle
from service.cluster.processes import is_running
from tests.chaos.cells import Cell, Phase
from tests.chaos.judge import (
    AttemptFacts,
    Faults,
    attempts_of,
    judge_attempts,
    judge_history,
    judge_keys,
    judge_weights,
)
from tests.chaos.phases import Scene, bring
from tests.chaos.stage import Stage
from tests.e2e.processes import wait_until_gone

STOPPED_S = 4.0
RECOVERY_S = 120.0
ORPHANS_END_S = 25.0


@dataclass
class Result:
    """What one strike did."""

    cell: Cell
    seed: int
    faults: Faults
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
    result = Result(cell, seed, Faults())
    scene = bring(stage, cell.phase, chance)
    before = stage.census()
    struck_at = datetime.now(UTC)
    result.missed = not _hit(stage, cell, scene.job)
    try:
        stage.repair()
        job = _settle(stage, scene, cell.phase)
    except AssertionError as fault:
        result.faults.lost.append(str(fault))
        _forget(stage, scene)
        return result
    _judge(stage, job, result, struck_at)
    _count_orphans(stage, before, result.faults)
    return result


def _hit(stage: Stage, cell: Cell, job: JobHandle) -> bool:
    """Strike; returns whether there was anything to hit."""
    if cell.action == "cut":
        assert stage.relay is not None
        stage.relay.cut()
        time.sleep(STOPPED_S)
        stage.relay.mend()
        return True
    try:
        pids = stage.pids(cell.victim, job)
    except ClientError:
        pids = ()
    number = signal.SIGKILL if cell.action == "kill" else signal.SIGSTOP
    hit = [pid for pid in pids if _send(pid, number)]
    if cell.action == "stop" and hit:
        time.sleep(STOPPED_S)
        for pid in hit:
            _send(pid, signal.SIGCONT)
    elif cell.action == "kill":
        wait_until_gone(frozenset(hit))
    return bool(hit)


def _send(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _settle(stage: Stage, scene: Scene, phase: Phase) -> JobHandle:
    """The job at its end; raises AssertionError if it does not come to one."""
    if (blocker := scene.blocker) is not None:
        _asked(lambda: stage.job(blocker.id).cancel())
    if phase == "pausing":
        _wait_for_state(stage, scene.job.id, ("paused", "succeeded"))
        _asked(lambda: _resume(stage.job(scene.job.id)))
    expected = ("cancelled", "succeeded") if phase == "cancelling" else ("succeeded",)
    return _wait_for_state(stage, scene.job.id, expected)


def _resume(job: JobHandle) -> None:
    if job.state == "paused":
        job.resume()


def _asked(ask: Callable[[], object]) -> None:
    """Ask the service, over the seconds in which it is not whole."""
    give_up_at = time.monotonic() + RECOVERY_S
    while time.monotonic() < give_up_at:
        try:
            ask()
        except ClientError as error:
            if isinstance(error, ApiError) and not error.problem.retryable:
                raise AssertionError(f"the service refused: {error}") from error
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"the service did not answer within {RECOVERY_S:.0f} s")


def _wait_for_state(stage: Stage, job_id: str, expected: tuple[str, ...]) -> JobHandle:
    last = "nothing was heard of it"
    give_up_at = time.monotonic() + RECOVERY_S
    while time.monotonic() < give_up_at:
        try:
            job = stage.job(job_id)
        except ClientError as error:
            if isinstance(error, ApiError) and not error.problem.retryable:
                raise AssertionError(f"the service answered {error}") from error
        else:
            last = f"{job.state} ({job.body.reason}): {job.body.message}"
            if job.state in expected:
                return job
            assert job.state not in ("failed", "cancelled", "succeeded"), last
        time.sleep(0.05)
    raise AssertionError(f"it did not end within {RECOVERY_S:.0f} s: {last}")


def _judge(stage: Stage, job: JobHandle, result: Result, struck_at: datetime) -> None:
    store = stage.store()
    facts = attempts_of(store, job)
    events = [
        (str(event.data["state"]), str(event.data["reason"]))
        for event in job.watch()
        if event.kind == "state"
    ]
    result.ended = job.state
    result.attempts = len(facts)
    result.reasons = [attempt.reason for attempt in job.body.attempts]
    judge_history(job, events, result.faults)
    result.recomputed_steps = judge_attempts(job, facts, result.faults)
    judge_weights(stage, job, result.faults)
    result.debris = len(judge_keys(store, job))
    result.recovery_s = _recovery_s(job, facts, struck_at)


def _recovery_s(job: JobHandle, facts: list[AttemptFacts], struck_at: datetime) -> float | None:
    """From the strike to the first step that was done after it; None where nothing was lost."""
    again = [attempt.first_step_at for attempt in facts[1:] if attempt.first_step_at is not None]
    after = [at for at in again if at > struck_at]
    if job.state == "cancelled" and job.body.ended_at is not None:
        after = [job.body.ended_at]
    return (after[0] - struck_at).total_seconds() if after else None


def _count_orphans(stage: Stage, before: frozenset[int], faults: Faults) -> None:
    """Processes from before the strike that live on and belong to nothing any more."""

    def orphans() -> frozenset[int]:
        mine = stage.census() | (stage.ray.pids() if stage.ray is not None else frozenset())
        return frozenset(pid for pid in before - mine if is_running(pid))

    give_up_at = time.monotonic() + ORPHANS_END_S
    while (left := orphans()) and time.monotonic() < give_up_at:
        time.sleep(0.2)
    faults.orphans += [f"{pid} {_name(pid)}" for pid in left]


def _name(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())[:80]
    except psutil.Error:
        return "?"


def _forget(stage: Stage, scene: Scene) -> None:
    """Clear the stage of a job that did not come to its end."""
    for job in (scene.job, scene.blocker):
        if job is not None:
            try:
                now = stage.job(job.id)
                if now.state not in ("succeeded", "failed", "cancelled"):
                    now.cancel()
                    _wait_for_state(stage, job.id, ("cancelled", "succeeded"))
            except (ClientError, AssertionError):
                continue
