"""Deleting jobs, and sweeping up what nobody needs."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api import bodies
from api.conditions import IfVersion, expected_version
from api.dependencies import Given, OwnJobId
from api.errors import INVALID_HEADER, INVALID_QUERY, SERVICE_PROBLEMS, documented
from api.jobs import json_answer
from api.routes import StrictRoute
from service import errors
from service.sweep import Report

router = APIRouter(prefix="/v1", route_class=StrictRoute)

_NO_STORE = {"Cache-Control": "no-store"}


@router.delete(
    "/jobs/{job_id}",
    operation_id="delete_job",
    summary="Delete a job that has ended",
    status_code=204,
    tags=["jobs"],
    responses={
        204: {"description": "The job is gone; its artifacts follow soon."},
        **documented(
            SERVICE_PROBLEMS[errors.JobNotFound],
            SERVICE_PROBLEMS[errors.NotYours],
            SERVICE_PROBLEMS[errors.StateConflict],
            SERVICE_PROBLEMS[errors.VersionConflict],
            INVALID_HEADER,
            INVALID_QUERY,
        ),
    },
)
def delete_job(
    job_id: OwnJobId,
    request: Request,
    services: Given,
    if_match: IfVersion = None,
) -> Response:
    """Delete a job with all that it has: events, metrics, checkpoints, files.

    It is gone at once; its artifacts are removed after that, unless another job refers to them.
    A job that has not ended must be cancelled first. Its Idempotency-Key is free again.
    """
    services.deletions.delete(job_id, expected_version(request))
    return Response(status_code=204)


@router.post(
    "/sweep",
    operation_id="start_sweep",
    summary="Remove what nobody needs",
    status_code=202,
    tags=["sweep"],
    response_model=bodies.SweepBody,
    responses={
        202: {
            "description": "It has begun; GET /v1/sweep tells how far it is.",
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        **documented(SERVICE_PROBLEMS[errors.SweepRunning], INVALID_QUERY),
    },
)
def start_sweep(
    services: Given,
    dry_run: Annotated[bool, Query(description="Only find; remove nothing.")] = False,
) -> Response:
    """Look through the artifact store and the service's cache for what nobody refers to.

    What was changed within the grace time of the settings is left alone. Asking again while one
    of the same kind is under way answers with that one.
    """
    body = _sweep_body(services.sweeper.request(dry_run))
    return json_answer(body, 202, {"Location": "/v1/sweep"} | _NO_STORE)


@router.get(
    "/sweep",
    operation_id="get_sweep",
    summary="The last sweep",
    tags=["sweep"],
    response_model=bodies.SweepBody,
    responses=documented(INVALID_QUERY),
)
def get_sweep(services: Given) -> Response:
    """Tell what the last sweep has found and removed, or how far it is."""
    return json_answer(_sweep_body(services.sweeper.last()), headers=_NO_STORE)


def _sweep_body(report: Report | None) -> bodies.SweepBody:
    """The last sweep, as far as it is."""
    if report is None:
        return bodies.SweepBody(
            number=0,
            state="none",
            dry_run=False,
            started_at=None,
            ended_at=None,
            error=None,
            count=0,
            size_bytes=0,
            totals=[],
            findings=[],
        )
    # It may go on while it is rendered: every figure is read once.
    counts, sizes = dict(report.counts), dict(report.sizes)
    return bodies.SweepBody(
        number=report.number,
        state=report.state,
        dry_run=report.dry_run,
        started_at=report.started_at,
        ended_at=report.ended_at,
        error=report.error,
        count=sum(counts.values()),
        size_bytes=sum(sizes.values()),
        totals=[
            bodies.TotalBody(kind=kind, count=counts[kind], size_bytes=sizes[kind])
            for kind in counts
        ],
        findings=[
            bodies.FindingBody(
                kind=finding.kind,
                name=finding.name,
                why=finding.why,
                count=finding.count,
                size_bytes=finding.size_bytes,
            )
            for finding in list(report.findings)
        ],
    )
