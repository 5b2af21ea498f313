"""Whether the process lives, whether it can work, and its figures."""

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from api import bodies
from api.dependencies import Given
from api.errors import INVALID_QUERY, documented
from api.jobs import json_answer
from api.routes import StrictRoute

router = APIRouter(tags=["health"], route_class=StrictRoute)


@router.get(
    "/livez",
    operation_id="livez",
    summary="Whether the process answers",
    response_model=bodies.LiveBody,
    responses=documented(INVALID_QUERY),
)
async def livez() -> Response:
    """Answer without asking anything else."""
    return json_answer(bodies.LiveBody())


@router.get(
    "/readyz",
    operation_id="readyz",
    summary="Whether the service can do its work",
    response_model=bodies.ReadyBody,
    responses={
        503: {"model": bodies.ReadyBody, "description": "A part does not work; which, and why."},
        **documented(INVALID_QUERY),
    },
)
def readyz(services: Given) -> Response:
    """Look at the database, the cluster and the artifact store."""
    report = services.health.report()
    body = bodies.ReadyBody(
        ready=report.ready,
        parts=[
            bodies.PartBody(name=part.name, ready=part.ready, detail=part.detail)
            for part in report.parts
        ],
    )
    headers = {"Cache-Control": "no-store"}
    if report.ready:
        return json_answer(body, headers=headers)
    return json_answer(body, 503, headers | {"Retry-After": "5"})


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={
        200: {
            "description": "Figures in Prometheus' text format.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        **documented(INVALID_QUERY),
    },
)
def metrics(request: Request) -> Response:
    """Requests by route and status, jobs by state, the age of the queue."""
    registry = request.app.state.registry
    assert isinstance(registry, CollectorRegistry)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
