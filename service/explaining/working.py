"""What a running job does, and whether it is slow, and why."""

import socket
import statistics
from collections.abc import Sequence

from service.cluster.processes import is_stopped
from service.explaining.troubles import trouble
from service.explaining.values import Change, Facts, Finding, Rule, Speed, span
from service.explaining.waiting import asked
from service.jobs import Attempt, Job, Reason
from service.jobstore import JobStore
from service.paces import SILENCE_S, Paces, remaining_s

SLOW = 0.5  # of what was usual
SLOW_START = 3.0  # times what was usual
SLOW_START_S = 15.0  # and no shorter
EARLIER_AT_LEAST = 3
POINTS = 100
LIKE_JOBS = 3
PACE = "data_per_s"


def explain_running(facts: Facts, jobs: JobStore, paces: Paces) -> Finding:
    """The first of what holds it up, else how it trains."""
    job, attempt = facts.job, facts.attempts[-1]
    if job.cancel_requested or job.pause_requested:
        return _ending(job)
    if (found := _stopped(facts, attempt)) is not None:
        return found
    if (found := trouble(facts, "It cannot be followed")) is not None:
        return found
    if attempt.first_step_at is None:
        return _starting(facts, attempt, paces)
    if (found := _silent(facts, attempt)) is not None:
        return found
    return _training(facts, attempt, speed_of(job, attempt, jobs, paces))


def speed_of(job: Job, attempt: Attempt, jobs: JobStore, paces: Paces) -> Speed | None:
    """Its pace by the metric ``data_per_s``, beside its own past and its like on this machine."""
    own = [
        point.value
        for point in jobs.metrics(job.id, [PACE], POINTS).get(PACE, [])
        if attempt.started_at is None or point.at >= attempt.started_at
    ]
    if not own:
        return None
    like: list[float] = []
    for other, its in paces.like(job.spec, job.id):
        if its.host == attempt.host and len(like) < LIKE_JOBS:
            points = jobs.metrics(other.id, [PACE], POINTS).get(PACE, [])
            like += [statistics.median(point.value for point in points)] if points else []
    return Speed(
        now=own[-1],
        before=statistics.median(own[:-1]) if len(own) > EARLIER_AT_LEAST else None,
        like=statistics.median(like) if like else None,
        like_jobs=len(like),
    )


def _ending(job: Job) -> Finding:
    verb = "cancelled" if job.cancel_requested else "paused"
    changes: Sequence[Change] = ()
    if not job.cancel_requested:
        changes = (Change("Take the wish back: it is queued again at once.", "resume", job.id),)
    return Finding(
        f"It is being {verb}, as was asked for: it publishes a last checkpoint.",
        Rule(
            "wish",
            f"It says {verb} only when nothing of it runs any more; after a time of grace its "
            "process is killed.",
        ),
        changes,
    )


def _stopped(facts: Facts, attempt: Attempt) -> Finding | None:
    is_here = facts.is_own and attempt.host == socket.gethostname()
    if attempt.pid is None or not is_here or not is_stopped(attempt.pid):
        return None
    return Finding(
        f"Its process {attempt.pid} on {attempt.host} was stopped by a signal (SIGSTOP or a "
        "debugger) and does nothing.",
        Rule("process_stopped", "A stopped process keeps its resources and its place."),
        (
            Change(f"Let it go on, on {attempt.host}: kill -CONT {attempt.pid}"),
            Change("Or end the attempt: after its grace it is killed.", "cancel", facts.job.id),
        ),
    )


def _starting(facts: Facts, attempt: Attempt, paces: Paces) -> Finding:
    waited_s = (facts.now - attempt.created_at).total_seconds()
    if _waits_for_ray(facts, attempt):
        return _placed_nowhere(facts, waited_s)
    if attempt.pid is None:
        phase = "its process is being started"
    elif attempt.started_at is None:
        phase = f"process {attempt.pid} on {attempt.host} loads data and model"
    else:
        phase = "data and model are there, and its first step is being computed"
    usual = paces.usual_start_s()
    beside = ""
    if usual is not None:
        beside = f"; usual here are {usual[0]:.1f} s (median of {usual[1]} attempt(s))"
    is_slow = usual is not None and waited_s > max(SLOW_START * usual[0], SLOW_START_S)
    headline = f"It has been starting for {span(waited_s)}: {phase}{beside}."
    if not is_slow:
        rule = Rule("starting", "A fresh process imports torch, and data may be fetched first.")
        return Finding(headline, rule)
    return Finding(
        headline,
        Rule(
            "starting_slowly",
            "A fresh process imports torch, and data may be fetched first. One that does not "
            "appear in time (SPREADTRAIN_START_TIMEOUT_S) is given up and repeated.",
        ),
        (
            Change("See what it says.", "logs", facts.job.id),
            Change("Pause it ...", "pause", facts.job.id),
            Change("... and resume it, to have a fresh attempt.", "resume", facts.job.id),
        ),
    )


def _waits_for_ray(facts: Facts, attempt: Attempt) -> bool:
    """Whether Ray has no room for an attempt that it was given, as the service took others' share
    for free."""
    claims, wanted = facts.claims, facts.job.spec.resources
    if facts.job.reason is Reason.WAITING_FOR_CLUSTER:
        return True
    if attempt.pid is not None or claims is None or claims.others is None:
        return False
    return (claims.free_cpus or 0.0) < wanted.workers * wanted.cpus_per_worker or (
        (claims.free_gpus or 0.0) < wanted.workers * wanted.gpus_per_worker
    )


def _placed_nowhere(facts: Facts, waited_s: float) -> Finding:
    claims = facts.claims
    held = ""
    if claims is not None and claims.others is not None:
        held = (
            f" Others hold {claims.others.cpus:g} core(s) and {claims.others.gpus:g} GPU(s) of it;"
            f" {claims.free_cpus or 0:g} core(s) and {claims.free_gpus or 0:g} GPU(s) are free."
        )
    return Finding(
        f"It was given to the Ray cluster {span(waited_s)} ago, which has not found room for "
        f"{asked(facts.job.spec.resources)} yet.{held}",
        Rule(
            "cluster_placement",
            "On a joined cluster Ray decides what runs where; programs that are not this service's "
            "hold resources that its queue does not know of.",
        ),
        (
            Change("End other programs on the Ray cluster, or add a node (see ray status)."),
            Change("Or pause it until there is room.", "pause", facts.job.id),
            Change("Or end it.", "cancel", facts.job.id),
        ),
    )


def _silent(facts: Facts, attempt: Attempt) -> Finding | None:
    heard_at = attempt.heard_at or attempt.created_at
    silence_s = (facts.now - heard_at).total_seconds()
    if silence_s <= SILENCE_S:
        return None
    return Finding(
        f"Its process {attempt.pid} on {attempt.host} has said nothing for {span(silence_s)}; the "
        f"last was step {attempt.last_step}.",
        Rule(
            "silent",
            "A process that trains writes its step every second. One that lives and says nothing "
            "hangs, or cannot reach the artifact store from its node.",
        ),
        (
            Change("See what it said last.", "logs", facts.job.id),
            Change("Pause it (after its grace it is killed) ...", "pause", facts.job.id),
            Change("... and resume it from its last checkpoint.", "resume", facts.job.id),
        ),
    )


def _training(facts: Facts, attempt: Attempt, speed: Speed | None) -> Finding:
    job = facts.job
    assert job.progress is not None
    left_s = remaining_s(job, attempt)
    left = "" if left_s is None else f", about {span(left_s)} left"
    where = f"step {job.progress.step} of {job.progress.total_steps}{left}"
    if speed is not None and speed.before is not None and speed.now < SLOW * speed.before:
        return Finding(
            f"It has become slow: {speed.now:.0f} data/s lately, {speed.before:.0f} before in this "
            f"attempt; {where}.",
            Rule("slow", "Less than half of its own median pace counts as slow."),
            _against_slowness(facts),
            speed,
        )
    if speed is not None and speed.like is not None and _typical(speed) < SLOW * speed.like:
        return Finding(
            f"It is slow: {_typical(speed):.0f} data/s, and {speed.like:.0f} had the last "
            f"{speed.like_jobs} job(s) like it on {attempt.host}; {where}.",
            Rule("slow", "Less than half of the median pace of its like on the same machine."),
            _against_slowness(facts),
            speed,
        )
    return Finding(
        f"It trains at its usual pace: {where}."
        if speed is not None and (speed.before or speed.like)
        else f"It trains: {where}.",
        Rule(
            "training",
            "It runs to its last epoch, to early stopping, until it has converged, or to a limit.",
        ),
        speed=speed,
    )


def _typical(speed: Speed) -> float:
    return speed.now if speed.before is None else speed.before


def _against_slowness(facts: Facts) -> tuple[Change, ...]:
    host = facts.attempts[-1].host
    others = () if facts.claims is None else facts.claims.holders
    beside = [holder.job_id for holder in others if holder.job_id != facts.job.id]
    return (
        Change(f"See what else uses the cores and the memory of {host}."),
        *(
            Change(f"Pause {other}, which runs beside it.", "pause", other)
            for other in beside[:LIKE_JOBS]
        ),
        Change("See whether it says why.", "logs", facts.job.id),
    )
