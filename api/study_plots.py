"""What a study's results show besides curves: fronts, importances, parallel coordinates."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api import bodies
from api.dependencies import Given, StudyId
from api.routes import StrictRoute
from api.study_curves import Metric, axis_body
from api.study_forms import documented_answer, send_answer
from service.studies.fronts import Front
from service.studies.importance import Evaluator, Importance
from service.studies.parallels import Parallels
from service.studies.plots import front_png, importance_png, parallel_png

router = APIRouter(prefix="/v1/studies", tags=["studies"], route_class=StrictRoute)

AskedPicture = Annotated[Literal["json", "png"] | None, Query(description="Overrides Accept.")]


@router.get(
    "/{study_id}/pareto",
    operation_id="get_pareto",
    summary="Two metrics against one another, and the front",
    response_model=bodies.ParetoBody,
    responses=documented_answer("The configurations and the front, or a picture of them.", None),
)
def get_pareto(
    study_id: StudyId,
    request: Request,
    services: Given,
    second: Annotated[
        str | None,
        Query(max_length=100, description="The metric beside the objective; the second one."),
    ] = None,
    format: AskedPicture = None,
) -> Response:
    """Show which configurations none surpasses in both metrics."""
    answers = services.answers
    return send_answer(
        request,
        services,
        study_id,
        format,
        {
            "json": lambda s: _pareto(answers.front(s, second)),
            "png": lambda s: front_png(answers.front(s, second)),
        },
        ("pareto", second),
    )


def _pareto(found: Front) -> bodies.ParetoBody:
    return bodies.ParetoBody(
        metrics=list(found.metrics),
        modes=list(found.modes),
        front=list(found.front),
        fresh_front=list(found.fresh_front),
        points=[
            bodies.FrontPointBody(
                configuration=number,
                values=dict(found.values[number]),
                search=list(point),
                fresh=list(found.fresh[number]) if number in found.fresh else None,
            )
            for number, point in found.searched.items()
        ],
    )


@router.get(
    "/{study_id}/importance",
    operation_id="get_importance",
    summary="How much each tuned parameter matters",
    response_model=bodies.ImportanceBody,
    responses=documented_answer("The shares, or a picture of them.", None),
)
def get_importance(
    study_id: StudyId,
    request: Request,
    services: Given,
    metric: Metric = None,
    evaluator: Annotated[
        Evaluator, Query(description="Of Optuna: PED-ANOVA, or one by random forests.")
    ] = "ped_anova",
    format: AskedPicture = None,
) -> Response:
    """Say how much of a metric the parameters explain, by trials that ran to their end.

    A parameter that exists on a condition is compared among the trials that have it.
    """
    answers = services.answers
    return send_answer(
        request,
        services,
        study_id,
        format,
        {
            "json": lambda s: _importance(answers.importance(s, metric, evaluator)),
            "png": lambda s: importance_png(answers.importance(s, metric, evaluator)),
        },
        ("importance", metric, evaluator),
    )


def _importance(found: Importance) -> bodies.ImportanceBody:
    return bodies.ImportanceBody(
        metric=found.metric,
        evaluator=found.evaluator,
        trials=found.trials,
        shares=[
            bodies.ShareBody(
                pointer=share.pointer, importance=share.importance, trials=share.trials
            )
            for share in found.shares
        ],
    )


@router.get(
    "/{study_id}/parallel",
    operation_id="get_parallel",
    summary="Every trial as a line through its values",
    response_model=bodies.ParallelBody,
    responses=documented_answer("The lines, or parallel coordinates as a picture.", None),
)
def get_parallel(
    study_id: StudyId,
    request: Request,
    services: Given,
    metric: Metric = None,
    format: AskedPicture = None,
) -> Response:
    """Draw parallel coordinates of all trials that have reported the metric."""
    answers = services.answers
    return send_answer(
        request,
        services,
        study_id,
        format,
        {
            "json": lambda s: _parallel(answers.parallels(s, metric)),
            "png": lambda s: parallel_png(answers.parallels(s, metric)),
        },
        ("parallel", metric),
    )


def _parallel(found: Parallels) -> bodies.ParallelBody:
    return bodies.ParallelBody(
        metric=found.metric,
        parameters=[axis_body(axis) for axis in found.axes],
        lines=[
            bodies.LineBody(
                trial=line.trial,
                configuration=line.configuration,
                values=dict(line.values),
                places=list(line.places),
                value=line.value,
                rank=line.rank,
                is_stopped=line.is_stopped,
            )
            for line in found.lines
        ],
    )
