"""What a job has made: metrics, checkpoints, grids, files."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from api import bodies, render
from api.dependencies import Given, JobId
from api.downloads import Redirect, documented_file, send_file
from api.errors import (
    CONTENT_CHANGED,
    INVALID_QUERY,
    NOT_ACCEPTABLE,
    RANGE_NOT_SATISFIABLE,
    SERVICE_PROBLEMS,
    documented,
)
from api.jobs import json_answer
from api.negotiation import VARY, choose
from api.routes import StrictRoute
from service import errors
from service.jobs import MetricPoint

router = APIRouter(prefix="/v1/jobs", tags=["results"], route_class=StrictRoute)

CSV = "text/csv"
POINTS_MAX = 100_000
_METRIC_FORMS = {"application/json": "json", CSV: "csv"}
_MISSING_JOB = SERVICE_PROBLEMS[errors.JobNotFound]
_MISSING_CHECKPOINT = SERVICE_PROBLEMS[errors.CheckpointNotFound]
_MISSING_RESULT = SERVICE_PROBLEMS[errors.ResultNotFound]
_OF_A_FILE = (CONTENT_CHANGED, RANGE_NOT_SATISFIABLE, INVALID_QUERY)

CheckpointChoice = Annotated[
    str,
    Path(description="Id of the checkpoint, or latest, or best.", examples=["latest", "best"]),
]


@router.get(
    "/{job_id}/metrics",
    operation_id="get_metrics",
    summary="Metrics over the run, as JSON or CSV",
    response_model=bodies.MetricsBody,
    responses={
        200: {
            "description": "The metrics by name, each in the order of steps.",
            "content": {
                CSV: {
                    "schema": {"type": "string"},
                    "example": "metric,step,epoch,value,at\r\n"
                    "loss_nats,90,1.0,571.2,2026-01-01T00:00:00+00:00\r\n",
                }
            },
        },
        **documented(_MISSING_JOB, NOT_ACCEPTABLE, INVALID_QUERY),
    },
)
def get_metrics(
    job_id: JobId,
    request: Request,
    services: Given,
    name: Annotated[
        list[str] | None, Query(description="Only these metrics; may come several times.")
    ] = None,
    max_points: Annotated[
        int,
        Query(ge=2, le=POINTS_MAX, description="Points of each metric; more are thinned out."),
    ] = 1000,
    format: Annotated[Literal["json", "csv"] | None, Query(description="Overrides Accept.")] = None,
) -> Response:
    """Read metrics; the first and the last point of each are always there. Scores of classifiers
    are not among them, as they see samples alone and never the data.

    Of a metric with more than eight times ``max_points`` points every k-th is looked at only, so
    that a peak of a single point may be missed; a larger ``max_points`` shows it.
    """
    chosen = format or _METRIC_FORMS[choose(request.headers.get("accept"), _METRIC_FORMS)]
    found = services.results.metrics(job_id, name, max_points)
    if chosen == "csv":
        return Response(_as_csv(found), headers=VARY, media_type=CSV)
    return Response(render.metrics_json(found), headers=VARY, media_type="application/json")


def _as_csv(metrics: Mapping[str, Sequence[MetricPoint]]) -> str:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(("metric", "step", "epoch", "value", "at"))
    for metric, points in metrics.items():
        rows.writerows((metric, p.step, p.epoch, p.value, p.at.isoformat()) for p in points)
    return text.getvalue()


@router.get(
    "/{job_id}/checkpoints",
    operation_id="list_checkpoints",
    summary="Checkpoints by step",
    response_model=bodies.CheckpointList,
    responses=documented(_MISSING_JOB, INVALID_QUERY),
)
def list_checkpoints(job_id: JobId, services: Given) -> Response:
    """List the checkpoints whose weights are kept."""
    found = services.results.checkpoints(job_id)
    trainer = services.results.spec(job_id).trainer.kind
    listed = [render.checkpoint_body(job_id, trainer, checkpoint) for checkpoint in found]
    return json_answer(bodies.CheckpointList(checkpoints=listed))


@router.get(
    "/{job_id}/checkpoints/{checkpoint}/weights",
    operation_id="get_weights",
    summary="The weights of a checkpoint",
    response_class=Response,
    responses={
        **documented_file("application/octet-stream", "The weights, in safetensors."),
        **documented(_MISSING_JOB, _MISSING_CHECKPOINT, *_OF_A_FILE),
    },
)
def get_weights(
    job_id: JobId,
    checkpoint: CheckpointChoice,
    request: Request,
    services: Given,
    redirect: Redirect = False,
) -> Response:
    """Fetch the weights; ``Generator.load`` samples from the file without the service."""
    return send_file(request, services.results.weights(job_id, checkpoint), redirect=redirect)


@router.get(
    "/{job_id}/grids",
    operation_id="list_grids",
    summary="Sample grids written during training",
    response_model=bodies.GridList,
    responses=documented(_MISSING_JOB, SERVICE_PROBLEMS[errors.OtherTrainer], INVALID_QUERY),
)
def list_grids(job_id: JobId, services: Given) -> Response:
    """List the grids by step; all show the same latents."""
    found = services.results.grids(job_id)
    return json_answer(bodies.GridList(grids=[render.artifact_body(job_id, a) for a in found]))


@router.get(
    "/{job_id}/artifacts",
    operation_id="list_artifacts",
    summary="Files that the job published",
    response_model=bodies.ArtifactList,
    responses=documented(_MISSING_JOB, INVALID_QUERY),
)
def list_artifacts(job_id: JobId, services: Given) -> Response:
    """List the files by name."""
    found = services.results.artifacts(job_id)
    return json_answer(
        bodies.ArtifactList(artifacts=[render.artifact_body(job_id, a) for a in found])
    )


@router.get(
    "/{job_id}/artifacts/{name:path}",
    operation_id="get_artifact",
    summary="A file that the job published",
    response_class=Response,
    responses={
        **documented_file("*/*", "The file."),
        **documented(_MISSING_JOB, _MISSING_RESULT, *_OF_A_FILE),
    },
)
def get_artifact(
    job_id: JobId,
    name: Annotated[str, Path(description="Name of the file.")],
    request: Request,
    services: Given,
    redirect: Redirect = False,
) -> Response:
    """Fetch a file."""
    return send_file(request, services.results.artifact(job_id, name), redirect=redirect)
