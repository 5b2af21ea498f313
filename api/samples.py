"""Samples of a trained model, over HTTP: pictures, arrays, numbers."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api import bodies
from api.dependencies import Given, JobId
from api.drawings import (
    BINARY,
    PNG,
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
from api.errors import INVALID_QUERY, SERVICE_PROBLEMS, documented
from api.routes import StrictRoute
from service import errors
from service.drawings import SampleRequest, Samples
from service.jobs import CheckpointInfo

router = APIRouter(prefix="/v1/jobs", tags=["samples"], route_class=StrictRoute)

# Beyond these an answer is no longer useful, or takes more memory than it is worth.
N_MAX: dict[Form, int] = {"png": 1024, "npz": 10_000, "json": 1000}


@router.get(
    "/{job_id}/samples",
    operation_id="get_samples",
    summary="Samples of the model",
    response_model=bodies.SamplesBody,
    responses=documented_drawing(
        "The samples: a grid (vectors: a scatter plot), an array named ``samples`` in an npz "
        "file, or numbers."
    ),
)
@drawing
def get_samples(
    job_id: JobId,
    request: Request,
    services: Given,
    n: Annotated[
        int,
        Query(ge=1, le=10_000, description="How many; 1024 at most as PNG, 1000 as JSON."),
    ] = 64,
    seed: Seed = 0,
    checkpoint: Choice = "latest",
    spread: Annotated[
        bool,
        Query(
            description="Add the spread's noise: y = g(z) + k, not g(z); of an ica job the model's "
            "noise, x = Az + mean + noise."
        ),
    ] = False,
    format: AskedForm = None,
) -> Response:
    """Draw samples. The same checkpoint, seed and n give the same bytes.

    A checkpoint named by its id answers for ever; ``latest`` and ``best`` say in Content-Location
    which one they are now.
    """
    form = chosen_form(request, format)
    check_count(n, form, N_MAX)
    source = services.sampling.checkpoint(job_id, checkpoint)
    wanted = SampleRequest(n=n, seed=seed, spread=spread)

    def draw() -> bytes | str:
        samples = services.sampling.draw(source, wanted, VALUES_MAX[form])
        return in_form(samples, form, lambda: _body(samples, source, wanted))

    query = {"n": n, "seed": seed} | ({"spread": "true"} if spread else {})
    etag = services.sampling.etag(source, wanted, form)
    return send_drawing(request, (job_id, "samples"), checkpoint, source, form, query, etag, draw)


def _body(samples: Samples, source: CheckpointInfo, wanted: SampleRequest) -> bodies.SamplesBody:
    return bodies.SamplesBody(
        checkpoint=source.id,
        step=source.step,
        seed=wanted.seed,
        n=wanted.n,
        spread=wanted.spread,
        shape=list(samples.array.shape),
        samples=samples.rows(),
    )


@router.get(
    "/{job_id}/filmstrip",
    operation_id="get_filmstrip",
    summary="The same latents over all checkpoints",
    response_class=Response,
    responses={
        200: {
            "description": "One row for each checkpoint, and real data in the last.",
            "content": {PNG: BINARY},
        },
        **documented(
            SERVICE_PROBLEMS[errors.JobNotFound],
            SERVICE_PROBLEMS[errors.CheckpointNotFound],
            SERVICE_PROBLEMS[errors.OtherTrainer],
            INVALID_QUERY,
        ),
    },
)
@drawing
def get_filmstrip(
    job_id: JobId,
    services: Given,
    epochs: Annotated[
        str | None,
        Query(
            pattern=r"^[1-9][0-9]{0,5}(,[1-9][0-9]{0,5}){0,63}$",
            description="Only these epochs, as 1,5,10; all checkpoints without it.",
        ),
    ] = None,
    n: Annotated[int, Query(ge=1, le=64, description="Latents, one column each.")] = 8,
    seed: Seed = 0,
) -> Response:
    """Draw a film strip of how the samples came about."""
    wanted = [int(epoch) for epoch in epochs.split(",")] if epochs else None
    picture = services.sampling.filmstrip(job_id, wanted, n, seed)
    return Response(picture, headers={"Cache-Control": "no-cache"}, media_type=PNG)
