"""Why a job waits, is slow, or has ended so."""

import json
import shlex
from typing import Any, Literal

from fastapi import APIRouter
from starlette.responses import Response

from api import bodies, render
from api.dependencies import Given, JobId
from api.errors import INVALID_QUERY, documented
from api.jobs import MISSING_JOB, json_answer
from api.routes import StrictRoute
from service.explaining import Change, Claims, Explanation, Link, Rule
from service.jobs import Job
from service.queueing import Holder

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=StrictRoute)


@router.get(
    "/{job_id}/explain",
    operation_id="explain_job",
    summary="Why a job waits, is slow, or has ended so",
    response_model=bodies.ExplanationBody,
    responses=documented(MISSING_JOB, INVALID_QUERY),
)
def explain_job(job_id: JobId, services: Given) -> Response:
    """Explain a job from recorded facts: the rule that decided, who holds what it waits for, the
    chain of causes of a failure, and the requests that would change it."""
    explanation = services.explaining.explain(job_id)
    return json_answer(explanation_body(explanation), headers={"Cache-Control": "no-store"})


def explanation_body(said: Explanation) -> bodies.ExplanationBody:
    """An explanation with the requests and commands that belong to it."""
    job, limits = said.job, said.job.limits
    path = render.job_path(job.id)
    return bodies.ExplanationBody(
        job=job.id,
        state=job.state.value,
        reason=job.reason.value,
        since=said.since,
        headline=said.headline,
        rule=_rule(said.rule),
        changes=[_change(change) for change in said.changes],
        resources=None if said.claims is None else _claims(job, said.claims),
        queue=None if said.standing is None else render.queue_body(said.standing),
        speed=None
        if said.speed is None
        else bodies.SpeedBody(
            now=said.speed.now,
            before=said.speed.before,
            like=said.speed.like,
            like_jobs=said.speed.like_jobs,
        ),
        limits=bodies.LimitsBody(max_wall_s=limits.max_wall_s, max_attempts=limits.max_attempts),
        attempts=[_link(link) for link in said.chain],
        last_lines=list(said.last_lines),
        links={"self": f"{path}/explain", "job": path, "logs": f"{path}/logs"},
    )


def _rule(rule: Rule) -> bodies.RuleBody:
    return bodies.RuleBody(name=rule.name, sentence=rule.sentence)


def _claims(job: Job, claims: Claims) -> bodies.ClaimsBody:
    asked = job.spec.resources
    return bodies.ClaimsBody(
        asked=bodies.AskedBody(
            workers=asked.workers,
            cpus_per_worker=asked.cpus_per_worker,
            gpus_per_worker=asked.gpus_per_worker,
        ),
        capacity=None
        if claims.capacity is None
        else bodies.AmountBody(cpus=claims.capacity.cpus, gpus=claims.capacity.gpus),
        free=None
        if claims.free_cpus is None or claims.free_gpus is None
        else bodies.AmountBody(cpus=claims.free_cpus, gpus=claims.free_gpus),
        held=[_holder(holder) for holder in claims.holders],
        others=None
        if claims.others is None
        else bodies.AmountBody(cpus=claims.others.cpus, gpus=claims.others.gpus),
    )


def _holder(holder: Holder) -> bodies.HolderBody:
    held = holder.resources
    return bodies.HolderBody(
        job=holder.job_id,
        cpus=held.workers * held.cpus_per_worker,
        gpus=held.workers * held.gpus_per_worker,
        since=holder.since,
        is_ending=holder.is_ending,
        remaining_s=holder.left_s,
    )


def _link(link: Link) -> bodies.LinkBody:
    attempt, seen = link.attempt, link.attempt.exit
    return bodies.LinkBody(
        attempt=attempt.number,
        reason=attempt.reason.value if attempt.reason else None,
        message=attempt.message,
        counts=link.counts,
        host=attempt.host,
        pid=attempt.pid,
        created_at=attempt.created_at,
        ended_at=attempt.ended_at,
        heard_at=attempt.heard_at,
        resumed_from_step=attempt.resumed_from_step,
        last_step=attempt.last_step,
        exit=None
        if seen is None
        else bodies.ExitBody(signal=seen.signal, code=seen.code, detail=seen.detail),
        memory=bodies.MemoryBody(
            peak_rss_bytes=attempt.peak_rss_bytes,
            oom_kills=None if seen is None else seen.oom_kills,
            by_memory_monitor=seen is not None and seen.by_memory_monitor,
        ),
        followed_by=link.followed_by,
    )


def _change(change: Change) -> bodies.ChangeBody:
    body = dict(change.body) or None
    path = render.job_path(change.job_id)
    match change.action:
        case "none":
            return bodies.ChangeBody(sentence=change.sentence, command=None, request=None)
        case "readyz":
            return _asking(change, None, "GET", "/readyz", None)
        case "spec":
            return _asking(change, None, "GET", f"{path}/spec", None)
        case "logs":
            command = f"spreadtrain logs {change.job_id}"
            return _asking(change, command, "GET", f"{path}/logs", None)
        case "fork":
            return _asking(change, _fork(change), "POST", f"{path}/fork", body or {})
        case "retry":
            flags = [
                f"--{name.replace('_', '-')} {value:g}"
                for name, value in change.body.get("limits", {}).items()
            ]
            command = " ".join(["spreadtrain retry", change.job_id, *flags])
            return _asking(change, command, "POST", f"{path}/retry", body)
        case verb:
            return _asking(
                change, f"spreadtrain {verb} {change.job_id}", "POST", f"{path}/{verb}", None
            )


def _asking(
    change: Change,
    command: str | None,
    method: Literal["GET", "POST"],
    path: str,
    body: dict[str, Any] | None,
) -> bodies.ChangeBody:
    request = bodies.RequestBody(method=method, path=path, body=body)
    return bodies.ChangeBody(sentence=change.sentence, command=command, request=request)


def _fork(change: Change) -> str:
    """The command that reads the changes of the spec from its standard input."""
    words = ["spreadtrain", "fork", change.job_id]
    spec = change.body.get("spec")
    if spec:
        words.append("-")
    for name in ("checkpoint", "start"):
        if name in change.body:
            words += [f"--{name}", str(change.body[name])]
    command = shlex.join(words)
    return f"echo {shlex.quote(json.dumps(spec))} | {command}" if spec else command
