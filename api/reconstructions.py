"""Reconstructions of held-out data, over HTTP: data, what the encoder saw, and what came of it."""

from typing import Annotated

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
    check_count,
    chosen_form,
    documented_drawing,
    drawing,
    in_form,
    send_drawing,
)
from api.errors import SERVICE_PROBLEMS
from api.routes import StrictRoute
from service import errors
from service.drawings import DrawnReconstructions, ReconstructionRequest
from service.jobs import CheckpointInfo

router = APIRouter(prefix="/v1/jobs", tags=["samples"], route_class=StrictRoute)

N_MAX: dict[Form, int] = {"png": 256, "npz": 2500, "json": 250}  # each has several arrays


@router.get(
    "/{job_id}/reconstructions",
    operation_id="get_reconstructions",
    summary="Reconstructions of held-out data",
    response_model=bodies.ReconstructionsBody,
    responses=documented_drawing(
        "Data x, what the encoder sees of them, y, and reconstructions g: labelled rows of "
        "pictures (vectors: scatter plots on the same axes), arrays ``x``, ``y``, ``z`` and ``g`` "
        "in an npz file, or numbers.",
        SERVICE_PROBLEMS[errors.ResultNotFound],
    ),
)
@drawing
def get_reconstructions(
    job_id: JobId,
    request: Request,
    services: Given,
    n: Annotated[
        int, Query(ge=1, le=2500, description="How many; 256 at most as PNG, 250 as JSON.")
    ] = 16,
    seed: Seed = 0,
    checkpoint: Choice = "latest",
    format: AskedForm = None,
) -> Response:
    """Encode held-out data and decode them again.

    The seed chooses the data x, each once before one comes again, and draws the noise of
    y = x + k at the scale of the checkpoint's epoch (f(x) + k where f is learned); a model that is
    trained on clean data gets y = x. The latent z is the posterior's mean at y, and g = g(z).
    Values of y are never clipped.
    Where the service does not have the data (any more), the answer is 404.
    """
    form = chosen_form(request, format)
    check_count(n, form, N_MAX)
    source = services.sampling.source(job_id, checkpoint)
    wanted = ReconstructionRequest(n=n, seed=seed)

    def draw() -> bytes | str:
        drawn = services.sampling.reconstruct(source, wanted, VALUES_MAX[form])
        return in_form(drawn, form, lambda: _body(drawn, source.checkpoint, wanted))

    etag = services.sampling.etag(source.checkpoint, wanted, form, source.data)
    return send_drawing(
        request,
        (job_id, "reconstructions"),
        checkpoint,
        source.checkpoint,
        form,
        {"n": n, "seed": seed},
        etag,
        draw,
    )


def _body(
    drawn: DrawnReconstructions, source: CheckpointInfo, wanted: ReconstructionRequest
) -> bodies.ReconstructionsBody:
    found = drawn.found
    return bodies.ReconstructionsBody(
        checkpoint=source.id,
        step=source.step,
        seed=wanted.seed,
        n=wanted.n,
        noise_scale=drawn.noise_scale,
        shape=list(found.x.shape),
        x=found.x.tolist(),
        y=found.y.tolist(),
        z=found.z.tolist(),
        g=found.g.tolist(),
        rmse=drawn.rmse,
    )
