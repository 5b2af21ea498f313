"""What a strike may leave behind once its job has ended: processes, placement groups, keys."""

import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

import psutil

from api.client import JobHandle
from service.cluster.processes import is_running
from tests.chaos.judge import Faults
from tests.chaos.stage import SPARES, WORKERS, Stage, title_of
from workers.artifacts import ArtifactStore, attempt_prefix, job_prefix

Thing = TypeVar("Thing")
END_S = 30.0  # the service looks for groups that nobody knows every 10 s
ELSEWHERE = ".incoming-spreadtrain-"
SWEEP_GRACE_S = 1.0  # as the stage sets it


def count_orphans(stage: Stage, before: frozenset[int], job: JobHandle, faults: Faults) -> None:
    """Processes that belong to nothing any more: those from before the strike whose service or Ray
    is gone, those of attempts that are over, and executors beyond the spare ones."""
    attempts = [attempt for attempt in job.body.attempts if attempt.pid is not None]
    over = {attempt.pid for attempt in attempts if attempt.reason != "completed"}

    def orphans() -> set[int]:
        mine = stage.census() | (stage.ray.pids() if stage.ray is not None else frozenset())
        left = {pid for pid in before - mine if is_running(pid)}
        executors = stage.executors()
        left |= executors & over
        return left | (set(executors) if len(executors) > SPARES[stage.setting] else set())

    faults.orphans += [f"{pid} {title_of(pid)[:80]}" for pid in _when_settled(orphans)]


def count_groups(stage: Stage, faults: Faults) -> None:
    """Placement groups; only gangs have any, and none is running now."""
    if WORKERS[stage.setting] == 1:
        return

    def groups() -> Sequence[str]:
        try:
            return stage.groups()
        except (subprocess.SubprocessError, psutil.Error, ValueError) as error:
            return [f"Ray could not be asked: {error}"]

    faults.groups += _when_settled(groups)


def unfinished(store: ArtifactStore) -> frozenset[str]:
    """Writes of which the store has a part; not the folders of all programs in TMPDIR."""
    names = (write.name for write in store.unfinished())
    return frozenset(name for name in names if not name.startswith(ELSEWHERE))


def judge_keys(
    stage: Stage, store: ArtifactStore, job: JobHandle, before: frozenset[str], faults: Faults
) -> int:
    """How many keys and unfinished writes the strike has left that nothing speaks of, files of a
    checkpoint that it interrupted; the sweep must find every one."""
    left = {*_unknown(store, job), *(unfinished(store) - before)}
    if not left:
        return 0
    time.sleep(2 * SWEEP_GRACE_S)
    sweep = stage.service.client.sweep(dry_run=True)
    found = {finding.name for finding in sweep.findings}
    faults.keys += [f"the sweep does not find {name}" for name in sorted(left - found)]
    return len(left)


def _unknown(store: ArtifactStore, job: JobHandle) -> list[str]:
    known = {
        f"{attempt_prefix(job.id, checkpoint.attempt)}/checkpoints/{checkpoint.id}"
        for checkpoint in job.checkpoints()
    }
    return [
        stored.key
        for stored in store.list(job_prefix(job.id))
        if "/checkpoints/" in stored.key and stored.key.rpartition("/")[0] not in known
    ]


def _when_settled(look: Callable[[], Collection[Thing]]) -> list[Thing]:
    """What is left after a while, if anything is."""
    give_up_at = time.monotonic() + END_S
    while (left := look()) and time.monotonic() < give_up_at:
        time.sleep(0.2)
    return list(left)
