"""Interpolations between latents, over HTTP."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api import bodies
from api.dependencies import Given, JobId
from api.drawings import (
    VALUES_MAX,
    AskedForm,
    Choice,
    Form,
    Seed,
    chosen_form,
    documented_drawing,
    drawing,
    in_form,
    send_drawing,
)
from api.errors import INVALID_QUERY, SERVICE_PROBLEMS, RefusedError
from api.routes import StrictRoute
from service import errors
from service.drawings import DrawnInterpolations, InterpolationRequest
from service.errors import FieldError
from service.jobs import CheckpointInfo

router = APIRouter(prefix="/v1/jobs", tags=["samples"], route_class=StrictRoute)

FRAMES_MAX: dict[Form, int] = {"png": 1024, "npz": 10_000, "json": 1000}  # n times steps
STEPS_MAX = 64


@router.get(
    "/{job_id}/interpolations",
    operation_id="get_interpolations",
    summary="Paths from one latent to another, decoded",
    response_model=bodies.InterpolationsBody,
    responses=documented_drawing(
        "The paths: one row of pictures each, between data with the data at its ends (vectors: "
        "lines in a plot); arrays ``z`` and ``g``, between data also ``x``, in an npz file; or "
        "numbers.",
        SERVICE_PROBLEMS[errors.ResultNotFound],
    ),
)
@drawing
def get_interpolations(
    job_id: JobId,
    request: Request,
    services: Given,
    n: Annotated[
        int,
        Query(
            ge=1,
            le=5000,
            description="How many paths; n times steps is at most 1024 as PNG, 10,000 as npz and "
            "1000 as JSON.",
        ),
    ] = 8,
    seed: Seed = 0,
    checkpoint: Choice = "latest",
    steps: Annotated[
        int, Query(ge=2, le=STEPS_MAX, description="Points of each path, its ends included.")
    ] = 10,
    between: Annotated[
        Literal["prior", "data"],
        Query(
            description="What is at the ends: draws of the prior (latents 2i and 2i + 1 of the "
            "samples of that seed), or held-out data, encoded (those of the reconstructions)."
        ),
    ] = "prior",
    path: Annotated[
        Literal["spherical", "linear"],
        Query(
            description="spherical turns at constant speed and keeps the norm between those of "
            "the ends, where the prior has its mass; linear is a straight line, whose middle is "
            "nearer to 0 than nearly all draws of the prior."
        ),
    ] = "spherical",
    format: AskedForm = None,
) -> Response:
    """Decode the latents along paths; path i depends on the seed and i alone."""
    form = chosen_form(request, format)
    _check_frames(n, steps, form)
    source = services.sampling.path_source(job_id, checkpoint)
    wanted = InterpolationRequest(n=n, seed=seed, steps=steps, between=between, path=path)

    def draw() -> bytes | str:
        drawn = services.sampling.interpolate(source, wanted, VALUES_MAX[form])
        return in_form(drawn, form, lambda: _body(drawn, source.checkpoint, wanted))

    data = source.data if between == "data" else None
    etag = services.sampling.etag(source.checkpoint, wanted, form, data)
    return send_drawing(
        request,
        (job_id, "interpolations"),
        checkpoint,
        source.checkpoint,
        form,
        {"n": n, "seed": seed, "steps": steps, "between": between, "path": path},
        etag,
        draw,
    )


def _check_frames(n: int, steps: int, form: Form) -> None:
    most = FRAMES_MAX[form] // steps
    if n > most:
        message = f"must be at most {most} as {form} with steps={steps}"
        raise RefusedError(
            INVALID_QUERY, f"/query/n {message}.", errors=[FieldError("/query/n", message)]
        )


def _body(
    drawn: DrawnInterpolations, source: CheckpointInfo, wanted: InterpolationRequest
) -> bodies.InterpolationsBody:
    found = drawn.found
    return bodies.InterpolationsBody(
        checkpoint=source.id,
        step=source.step,
        seed=wanted.seed,
        n=wanted.n,
        steps=wanted.steps,
        between=wanted.between,
        path=wanted.path,
        shape=list(found.g.shape),
        z=found.z.tolist(),
        g=found.g.tolist(),
        x=None if found.x is None else found.x.tolist(),
    )
