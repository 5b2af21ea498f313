"""From values of studies to the bodies of answers."""

from collections.abc import Iterable
from typing import Any

from api import bodies
from api.render import finite_values, job_links, job_path, study_path
from service.errors import FieldError
from service.jobs import JobState
from service.studies.answers import StudyProgress
from service.studies.cautions import cautions
from service.studies.ledger import Phase, Study, StudyPage
from service.studies.objective import objections
from service.studies.planning import StudyPlan
from service.studies.request import Objective, StudyRequest
from service.studies.standings import Outcome

_ANSWERS = ("trials", "best", "curve", "pareto", "importance", "parallel", "samples")
_VERBS = ("cancel", "pause", "resume", "retry", "promote")


def study_links(study_id: str) -> dict[str, str]:
    """The paths of what belongs to a study."""
    path = study_path(study_id)
    jobs = {"jobs": f"/v1/jobs?study={study_id}"}
    return {"self": path} | {name: f"{path}/{name}" for name in (*_ANSWERS, *_VERBS)} | jobs


def objective_body(objective: Objective) -> bodies.ObjectiveBody:
    """What ranks trials."""
    return bodies.ObjectiveBody(metric=objective.metric, mode=objective.mode)


def field_bodies(fields: Iterable[FieldError]) -> list[bodies.ProblemField]:
    """Remarks on fields of a request."""
    return [bodies.ProblemField(pointer=one.pointer, message=one.message) for one in fields]


def _summary_fields(study: Study, trials: int) -> dict[str, Any]:
    request = study.request
    second = request.second_objective
    return {
        "id": study.id,
        "name": request.name,
        "state": study.state.value,
        "reason": study.reason.value,
        "message": study.message,
        "cancel_requested": study.cancel_requested,
        "pause_requested": study.pause_requested,
        "owner": study.owner,
        "is_overridden": study.is_overridden,
        "objective": objective_body(request.objective),
        "second_objective": None if second is None else objective_body(second),
        "tuned": list(request.space),
        "searcher": request.search.kind,
        "scheduler": request.scheduler.kind,
        "trainer": request.spec.trainer.kind,
        "dataset": request.spec.data_name,
        "trials": trials,
        "driver": study.attempt,
        "version": study.version,
        "created_at": study.created_at,
        "updated_at": study.updated_at,
        "ended_at": study.ended_at,
        "links": study_links(study.id),
    }


def study_page(page: StudyPage) -> bodies.StudyPageBody:
    """One page of a list."""
    listed = [
        bodies.StudySummary(**_summary_fields(study, trials)) for study, trials in page.studies
    ]
    return bodies.StudyPageBody(studies=listed, next_cursor=page.next_cursor)


def study_body(study: Study, progress: StudyProgress, data_count: int | None) -> bodies.StudyBody:
    """A study, whole; its data set has ``data_count`` data, if that is known."""
    return bodies.StudyBody(
        **_summary_fields(study, sum(progress.counts.values())),
        progress=_progress_body(study.request, progress),
        best_so_far=_best_so_far(progress),
        objections=field_bodies(objections(study.request)) if study.is_overridden else [],
        cautions=field_bodies(cautions(study.request, data_count)),
        request=study.request.model_dump(mode="json"),
    )


def _best_so_far(progress: StudyProgress) -> bodies.BestSoFarBody | None:
    if progress.best is None or progress.best_value is None:
        return None
    return bodies.BestSoFarBody(
        configuration=progress.best, values=dict(progress.best_values), value=progress.best_value
    )


def _progress_body(request: StudyRequest, progress: StudyProgress) -> bodies.StudyProgressBody:
    budget = request.budget
    epochs_left = None
    if budget.max_epochs is not None:
        epochs_left = max(budget.max_epochs - progress.epochs, 0)
    wall_left_s = None
    if budget.max_wall_s is not None:
        wall_left_s = max(budget.max_wall_s - progress.searched_s, 0.0)
    return bodies.StudyProgressBody(
        configurations=progress.configurations,
        search=_counts(progress, Phase.SEARCH),
        confirmation=_counts(progress, Phase.CONFIRMATION),
        results=progress.results,
        epochs=progress.epochs,
        searched_s=progress.searched_s,
        trials_left=max(budget.trials - progress.configurations, 0),
        epochs_left=epochs_left,
        wall_left_s=wall_left_s,
    )


def _counts(progress: StudyProgress, phase: Phase) -> bodies.TrialCountsBody:
    counts = {state.value: progress.counts.get((phase, state), 0) for state in JobState}
    return bodies.TrialCountsBody(**counts)


def plan_body(plan: StudyPlan) -> bodies.StudyPlanBody:
    """What a submission would do."""
    return bodies.StudyPlanBody(
        request=plan.request.model_dump(mode="json"),
        searcher=plan.request.search.kind,
        scheduler=plan.request.scheduler.kind,
        configurations=plan.configurations,
        trials=plan.trials,
        confirmation_trials=plan.confirmation_trials,
        epochs=plan.epochs,
        cpus=plan.cpus,
        gpus=plan.gpus,
        memory_bytes=plan.memory_bytes,
        storage_bytes=plan.storage_bytes,
        duration_s=plan.duration_s,
        core_s=plan.core_s,
        basis=plan.basis,
        waits_for=plan.waits_for,
        metrics=list(plan.metrics),
        is_overridden=plan.request.override_guard and bool(plan.objections),
        objections=field_bodies(plan.objections),
        cautions=field_bodies(plan.cautions),
    )


def trial_body(study: Study, outcome: Outcome) -> bodies.TrialBody:
    """One trial with what it has reported last."""
    trial = outcome.trial
    links = job_links(trial.job_id, study.request.spec.trainer.kind)
    return bodies.TrialBody(
        number=trial.number,
        configuration=trial.configuration,
        values=dict(trial.values),
        seed=trial.seed,
        phase=trial.phase.value,
        job=trial.job_id,
        state=trial.state.value,
        reason=trial.reason.value,
        message=trial.message,
        epoch=outcome.epoch,
        metrics=finite_values(outcome.metrics),
        is_whole=outcome.is_whole,
        created_at=trial.created_at,
        ended_at=trial.ended_at,
        links={
            "job": job_path(trial.job_id),
            **{name: links[name] for name in ("events", "logs", "checkpoints", "samples")},
            "study": study_path(study.id),
        },
    )
