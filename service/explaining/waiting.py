"""Why a queued or a paused job waits."""

from service.explaining.troubles import trouble
from service.explaining.values import Change, Claims, Facts, Finding, Rule, span
from service.jobs import JobState
from service.queueing import Holder
from workers.spec import Resources

NAMED = 3  # jobs that a sentence names
TURNS = (
    "The queue is strict: higher priority first, then the earlier submission; nobody overtakes a "
    "job that does not fit yet."
)


def explain_queued(facts: Facts, ahead: tuple[str, ...], studies: tuple[str, ...]) -> Finding:
    """Why a queued job does not run; ``ahead`` are the first jobs that start before it, and
    ``studies`` the studies."""
    job, standing = facts.job, facts.standing
    assert standing is not None
    if job.cancel_requested or job.pause_requested:
        verb = "cancelled" if job.cancel_requested else "paused"
        return Finding(
            f"It is being {verb}, as was asked for.",
            Rule("wish", "A queued job has nothing that must end first: the next round does it."),
        )
    if job.not_before is not None and standing.not_before is not None:
        return _back_off(facts, (job.not_before - facts.now).total_seconds())
    if (found := trouble(facts, "It waits")) is not None:
        return found
    claims = facts.claims
    assert claims is not None
    assert claims.capacity is not None
    if not claims.capacity.fits(job.spec.resources):
        return _beyond(facts, claims)
    if standing.ahead:
        return _behind(facts, ahead, studies)
    if claims.free_cpus is not None and not _fits(claims, job.spec.resources):
        return _held(facts, claims)
    return Finding(
        "It is the next one and what it asks for is free: it starts within seconds.",
        Rule("about_to_start", TURNS),
    )


def explain_paused(facts: Facts) -> Finding:
    """What a paused job waits for: a word."""
    job = facts.job
    step = 0 if job.progress is None else job.progress.step
    where = f"from step {step}" if step else "from its beginning"
    return Finding(
        f"It is paused, as was asked for, and goes on {where} when somebody resumes it.",
        Rule("wish", "A paused job holds no resources and stays paused until it is resumed."),
        (
            Change("Let it go on.", "resume", job.id),
            Change("Or end it; its checkpoints stay.", "cancel", job.id),
        ),
    )


def asked(resources: Resources) -> str:
    """What a job asks for, in words."""
    each = f"{resources.cpus_per_worker} core(s)"
    if resources.gpus_per_worker:
        each += f" and {resources.gpus_per_worker} GPU(s)"
    return each if resources.workers == 1 else f"{resources.workers} workers with {each} each"


def _fits(claims: Claims, resources: Resources) -> bool:
    left = claims.capacity
    assert left is not None
    for holder in claims.holders:
        left = left.minus(holder.resources)
    return left.fits(resources)


def _back_off(facts: Facts, left_s: float) -> Finding:
    job, last = facts.job, facts.attempts[-1] if facts.attempts else None
    lost = "" if last is None else f", as attempt {last.number} was lost ({last.reason})"
    return Finding(
        f"It waits {span(max(left_s, 1.0))} more before its next attempt{lost}. {job.message}",
        Rule(
            "back_off",
            "An attempt that was lost to a crash, to a lack of memory or to an unreachable store "
            "is repeated after a time that doubles with each loss; meanwhile others may start.",
        ),
        (
            Change("To let it start at once, pause it ...", "pause", job.id),
            Change("... and resume it: that ends the back-off.", "resume", job.id),
            Change("Or end it.", "cancel", job.id),
        ),
    )


def _beyond(facts: Facts, claims: Claims) -> Finding:
    assert claims.capacity is not None
    return Finding(
        f"It asks for {asked(facts.job.spec.resources)}, and the cluster has "
        f"{claims.capacity.cpus:g} core(s) and {claims.capacity.gpus:g} GPU(s) in all: it cannot "
        "start until the cluster has more.",
        Rule(
            "beyond_capacity",
            "An attempt starts when all that it asks for is free at once. The cluster had enough "
            "when the job was submitted.",
        ),
        (
            Change("Give the cluster back what it had, or add a node; the job then starts."),
            Change("Or cancel it, as it holds up those behind it ...", "cancel", facts.job.id),
            Change("... and submit its spec again with smaller resources.", "spec", facts.job.id),
        ),
    )


def _behind(facts: Facts, ahead: tuple[str, ...], studies: tuple[str, ...]) -> Finding:
    job, standing = facts.job, facts.standing
    assert standing is not None
    jobs = standing.ahead - len(studies)
    counts = [f"{len(studies)} study(s)"] if studies else []
    counts += [f"{jobs} job(s)"] if jobs else []
    count = f"{' and '.join(counts)} start before it"
    ahead = (*studies, *ahead)
    named = ", ".join(ahead[:NAMED]) + (", ..." if standing.ahead > NAMED else "")
    return Finding(
        f"It waits for its turn: {count} ({named}). {_start_in(facts)}".rstrip(),
        Rule("priority_order", TURNS),
        (
            *(
                Change(f"Let {other} wait: POST /v1/studies/{other}/pause until this one runs.")
                if other in studies
                else Change(f"Let {other} wait: pause it until this one runs.", "pause", other)
                for other in ahead[:NAMED]
            ),
            Change("Or cancel this one ...", "cancel", job.id),
            Change(
                f"... and submit its spec again with a priority above {job.priority}.",
                "spec",
                job.id,
            ),
        ),
    )


def _held(facts: Facts, claims: Claims) -> Finding:
    job = facts.job
    assert claims.capacity is not None
    free = f"{claims.free_cpus:g} of {claims.capacity.cpus:g} core(s)"
    if job.spec.resources.gpus_per_worker:
        free += f" and {claims.free_gpus:g} of {claims.capacity.gpus:g} GPU(s)"
    named = "; ".join(_holding(holder) for holder in claims.holders[:NAMED])
    more = len(claims.holders) - NAMED
    return Finding(
        f"It is the next one and asks for {asked(job.spec.resources)}; {free} are free. {named}"
        f"{f'; and {more} more' if more > 0 else ''}. {_start_in(facts)}".rstrip(),
        Rule(
            "capacity",
            "An attempt starts when all that it asks for is free at once; running jobs keep what "
            "they hold to their end.",
        ),
        (
            *(_pause(holder) for holder in claims.holders[:NAMED] if not holder.is_ending),
            Change("Or add cores or a node to the cluster."),
            Change("Or do without it.", "cancel", job.id),
        ),
    )


def _pause(holder: Holder) -> Change:
    if holder.study_id is not None:
        path = f"POST /v1/studies/{holder.study_id}/pause"
        return Change(f"Pause {holder.study_id}, which goes on later: {path}.")
    return Change(f"Pause {holder.job_id}, which goes on later.", "pause", holder.job_id)


def explain_trial(facts: Facts) -> Finding:
    """Why a trial of a study waits: it is the study that has a turn, and pauses."""
    job = facts.job
    if (found := trouble(facts, "It waits")) is not None:
        return found
    if job.state is JobState.PAUSED:
        return Finding(
            f"It is paused by its study, {job.study_id}, which lets it go on when its turn comes: "
            "when others of its rung are there, or when the study goes on.",
            _OF_STUDY,
        )
    later = ""
    if job.not_before is not None and job.not_before > facts.now:
        later = (
            f" It waits {span((job.not_before - facts.now).total_seconds())} more. {job.message}"
        )
    return Finding(
        f"It is a trial of {job.study_id}, which starts it when one of its places is free.{later}",
        _OF_STUDY,
        (Change("Or do without it; the study counts it as failed.", "cancel", job.id),),
    )


_OF_STUDY = Rule(
    "trial_of_study",
    "A study holds places for its trials; they start there in their order, and it is the study "
    "that waits in the queue.",
)


def _holding(holder: Holder) -> str:
    left = "ends, nobody can tell when" if holder.left_s is None else f"{span(holder.left_s)} left"
    if holder.is_ending:
        left = "is about to end"
    if holder.study_id is not None:
        return f"{holder.study_id} holds {asked(holder.resources)} for its trials ({left})"
    return f"{holder.job_id} holds {asked(holder.resources)} ({left})"


def _start_in(facts: Facts) -> str:
    standing = facts.standing
    if standing is None or standing.starts_at is None:
        return "" if standing is None else standing.basis
    seconds = max((standing.starts_at - facts.now).total_seconds(), 0.0)
    return f"It starts in about {span(seconds)}."
