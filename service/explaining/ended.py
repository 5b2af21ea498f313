"""Why a job has ended as it has: the chain of its attempts, the rule, and what to do next."""

from collections.abc import Mapping, Sequence

from service.explaining.values import Change, Finding, Link, Rule
from service.jobs import BY_STUDY, Attempt, Job, JobState, Reason
from service.verdicts import REPEATS
from workers.events import Exit
from workers.spec import Ica, IcaSpec, PaperSpec, RefitSpec, TrainSpec

_COUNTED = frozenset(Reason(reason) for reason in REPEATS)
_NOT_REPEATED: Mapping[Reason, str] = {
    Reason.DIVERGED: "A run whose numbers became infinite is not repeated: it would do so again.",
    Reason.INVALID: "A spec that does not fit is not repeated: it would not fit again.",
    Reason.DATA_UNAVAILABLE: "Data that cannot be had are not asked for again by themselves.",
    Reason.EXTRACTOR_UNAVAILABLE: "A node without the weights of a feature extractor has none the "
    "next time either.",
    Reason.STORE_NOT_SHARED: "A node without the artifact folder refuses every attempt.",
    Reason.VERSION_MISMATCH: "A node with other versions of the software refuses every attempt.",
    **dict.fromkeys(
        (
            *(Reason.TOO_FEW_ROWS, Reason.TOO_MANY_COMPONENTS, Reason.CONSTANT_COLUMNS),
            *(Reason.RANK_DEFICIENT, Reason.COLLAPSED_COMPONENT, Reason.NOT_A_NUMBER),
        ),
        "Data without such a decomposition have none the next time either.",
    ),
    Reason.INTERNAL_ERROR: "A defect of the software is not repeated: it would come again.",
}
_GIB = 1 << 30


def explain_ended(job: Job, attempts: Sequence[Attempt], *, has_checkpoint: bool) -> Finding:
    """How a job ended, by which rule, and what can be done now."""
    last = attempts[-1] if attempts else None
    match job.state:
        case JobState.SUCCEEDED:
            return _succeeded(job, last)
        case JobState.CANCELLED:
            return Finding(
                "It was cancelled, as was asked for.",
                Rule("wish", "A wish to cancel beats all else; its checkpoints stay."),
                (Change("Let it go on from its last checkpoint.", "retry", job.id),),
            )
        case _:
            return _failed(job, last, has_checkpoint=has_checkpoint)


def chain(job: Job, attempts: Sequence[Attempt]) -> tuple[Link, ...]:
    """Attempt by attempt: how each ended, and how the job went on from it."""
    links = []
    for at, attempt in enumerate(attempts):
        following = attempts[at + 1] if at + 1 < len(attempts) else None
        counts = attempt.number >= job.counts_from and attempt.reason in _COUNTED
        links.append(Link(attempt, counts, _followed_by(job, attempt, following)))
    return tuple(links)


def _followed_by(job: Job, attempt: Attempt, following: Attempt | None) -> str:
    if following is None:
        if attempt.ended_at is None:
            return "It is the present attempt."
        return f"It was the last one; the job is {job.state}."
    if following.resumed_from_step is not None:
        again = (attempt.last_step or 0) - following.resumed_from_step
        repeated = f"; {again} step(s) were computed again" if again > 0 else ""
        step = following.resumed_from_step
        return f"Attempt {following.number} went on from step {step}{repeated}."
    if following.started_at is None:
        return f"Attempt {following.number} followed, and has not begun to train."
    return f"Attempt {following.number} began from the start, as there was no checkpoint."


def _succeeded(job: Job, last: Attempt | None) -> Finding:
    step = "" if job.progress is None else f" after {job.progress.step} steps"
    if job.reason is Reason.STOPPED_EARLY:
        return Finding(
            f"It has succeeded{step}: it stopped early. {job.message}",
            Rule("early_stopping", "spec.trainer.early_stopping ends a run that improves no more."),
            (Change("Train on from its last checkpoint, as a new job.", "fork", job.id),),
        )
    if job.reason is Reason.STOPPED_BY_STUDY:
        return Finding(
            f"It has succeeded{step}: its study, {job.study_id}, stopped it. {job.message}",
            Rule("stopped_by_study", "A study's scheduler ends trials that promise less."),
            (Change("Train on from its last checkpoint, as a new job.", "fork", job.id),),
        )
    if job.reason in BY_STUDY:
        return Finding(
            f"It has succeeded{step}, and its study, {job.study_id}, stopped it. {job.message}",
            Rule(
                job.reason.value,
                "A study with stop_unhealthy ends trials whose latents carry too little of the "
                "data, as active_units and held_out_kl_nats say.",
            ),
            (Change("Train on from its last checkpoint, as a new job.", "fork", job.id),),
        )
    if isinstance(job.spec, IcaSpec):
        return _fitted(job, job.spec.trainer, step)
    if isinstance(job.spec, RefitSpec):
        return Finding(
            f"It has succeeded{step}. {job.message}",
            Rule("completed", "A refit ends when its scales (spec.trainer.scales) are done."),
        )
    if isinstance(job.spec, PaperSpec):
        return Finding(
            f"It has succeeded. {job.message}",
            Rule("completed", "A figure ends when its parts are done, whatever its verdicts say."),
        )
    attempt = "" if last is None or last.number == 1 else f", in attempt {last.number}"
    return Finding(
        f"It has succeeded{step}{attempt}: all epochs are done.",
        Rule("completed", "A run ends when its epochs (spec.trainer.epochs) are done."),
    )


def _fitted(job: Job, trainer: Ica, step: str) -> Finding:
    """How a fit has ended, which no number of epochs bounds."""
    if job.reason is Reason.ITERATION_LIMIT:
        most = min(2 * (trainer.max_iterations or 300), 100_000)
        body = {"spec": {"trainer": {"max_iterations": most}}}
        on = Change("Let it go on from its last checkpoint, as a new job.", "fork", job.id, body)
        return Finding(
            f"It has succeeded{step}, and has not converged. {job.message}",
            Rule("iteration_limit", "spec.trainer.max_iterations bounds each stage of a fit."),
            () if trainer.method == "fastica" else (on,),
        )
    return Finding(
        f"It has succeeded{step}. {job.message}",
        Rule(
            job.reason.value,
            "A fit ends when its residual is at most spec.trainer.tolerance."
            if job.reason is Reason.CONVERGED
            else "The published recipe ends after its iterations (spec.trainer.max_iterations).",
        ),
    )


def _failed(job: Job, last: Attempt | None, *, has_checkpoint: bool) -> Finding:
    number = "" if last is None else f" in attempt {last.number}"
    headline = f"It failed{number} ({job.reason}): {job.message}"
    if last is not None and (evidence := _evidence(last.exit, last.peak_rss_bytes)):
        headline = f"{headline} {evidence}"
    return Finding(headline, _rule(job), tuple(_next(job, last, has_checkpoint=has_checkpoint)))


def _rule(job: Job) -> Rule:
    if job.reason in _COUNTED:
        return Rule(
            "max_attempts",
            "An attempt that was lost is repeated with back-off from the last checkpoint, until "
            f"limits.max_attempts ({job.limits.max_attempts}) were lost since the last retry.",
        )
    if job.reason is Reason.TIME_LIMIT:
        return Rule(
            "time_limit",
            f"limits.max_wall_s ({job.limits.max_wall_s:g}) bounds the seconds of training over "
            "all attempts since the last retry."
            if job.limits.max_wall_s is not None
            else "limits.max_wall_s bounded the seconds of training.",
        )
    return Rule("not_repeated", _NOT_REPEATED.get(job.reason, "This is not repeated by itself."))


def _evidence(exit: Exit | None, peak_rss_bytes: int | None) -> str:
    """What was seen of the process's end, in a sentence."""
    parts = []
    if exit is not None and exit.signal is not None:
        parts.append(f"{exit.signal} ended its process")
    elif exit is not None and exit.code is not None:
        parts.append(f"its process ended with exit code {exit.code}")
    if exit is not None and exit.by_memory_monitor:
        parts.append("Ray's memory monitor ended it")
    if exit is not None and exit.oom_kills is not None:
        parts.append(f"the kernel ended {exit.oom_kills} process(es) for want of memory then")
    if peak_rss_bytes is not None:
        parts.append(f"its process had at most {peak_rss_bytes / _GIB:.2f} GiB of memory")
    return f"Seen: {'; '.join(parts)}." if parts else ""


def _next(job: Job, last: Attempt | None, *, has_checkpoint: bool) -> list[Change]:
    """What to do now, the best first."""
    spec = job.spec
    retry = Change("Retry it from its last checkpoint.", "retry", job.id)
    logs = Change("Read what it said.", "logs", job.id)
    match job.reason:
        case Reason.DIVERGED if isinstance(spec, TrainSpec):
            rate = spec.trainer.optimizer.learning_rate / 10
            body = {"checkpoint": "best", "spec": {"trainer": {"optimizer": {}}}}
            body["spec"] = {"trainer": {"optimizer": {"learning_rate": rate}}}
            lower = Change(
                "Fork it from its best checkpoint with a lower rate.", "fork", job.id, body
            )
            anew = Change("Submit its spec again with a lower learning rate.", "spec", job.id)
            return [lower, logs] if has_checkpoint else [anew, logs]
        case Reason.TIME_LIMIT:
            limit = 2 * (job.limits.max_wall_s or 3600.0)
            body = {"limits": {"max_wall_s": limit}}
            return [Change("Give it more time; it goes on where it was.", "retry", job.id, body)]
        case Reason.OUT_OF_MEMORY if isinstance(spec, TrainSpec):
            half = max(spec.trainer.batch_size // 2, 1)
            body = {"start": "weights", "spec": {"trainer": {"batch_size": half}}}
            smaller = Change("Fork it with a smaller batch.", "fork", job.id, body)
            anew = Change(
                "Submit its spec again with a smaller batch_size or network.", "spec", job.id
            )
            free = Change("Or retry it when other programs leave more memory.", "retry", job.id)
            return [smaller if has_checkpoint else anew, free, logs]
        case Reason.TOO_MANY_COMPONENTS | Reason.RANK_DEFICIENT | Reason.COLLAPSED_COMPONENT:
            fewer = "Submit its spec again with fewer components, as the message says."
            return [Change(fewer, "spec", job.id)]
        case Reason.TOO_FEW_ROWS | Reason.CONSTANT_COLUMNS | Reason.NOT_A_NUMBER:
            return [
                Change("Upload the data again, mended as the message says."),
                Change("Then submit its spec again.", "spec", job.id),
            ]
        case Reason.INVALID:
            return [Change("Submit its spec again, corrected.", "spec", job.id)]
        case Reason.DATA_UNAVAILABLE:
            return [Change("Make the data available, then retry it.", "retry", job.id), logs]
        case Reason.EXTRACTOR_UNAVAILABLE:
            return [Change("Install the weights on every node, as the message says."), retry]
        case Reason.STORE_UNREACHABLE:
            ready = Change("See whether the artifact store is there again.", "readyz")
            return [ready, retry]
        case Reason.STORE_FULL:
            return [Change("Make room where the artifact store keeps its objects."), retry]
        case Reason.STORE_NOT_SHARED:
            share = Change(
                "Use a store in S3 (SPREADTRAIN_ARTIFACTS_URI=s3://bucket/prefix), or mount the "
                "artifact folder under the same path on every node."
            )
            return [share, retry]
        case Reason.VERSION_MISMATCH:
            same = Change("Install the same versions on every node; the message names them.")
            return [same, retry]
        case Reason.INTERNAL_ERROR:
            number = job.attempt if last is None else last.number
            return [
                Change(
                    f"Report it with what the service's log has under '{job.id} attempt {number}'."
                ),
                Change("Retry it once the defect is mended.", "retry", job.id),
            ]
        case _:
            return [logs, retry]
