"""Standing questions as studies: what to submit."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from api import bodies
from api.dependencies import Given
from api.errors import INVALID_QUERY, documented
from api.jobs import json_answer
from api.routes import StrictRoute
from service.studies.presets import TITLES, Features, IcaSigma, Preset, SpreadScale

router = APIRouter(prefix="/v1/studies/presets", tags=["studies"], route_class=StrictRoute)

Dataset = Annotated[
    str,
    Query(
        min_length=1,
        max_length=64,
        description="Name of a data set, or kind of a toy.",
        examples=["digits"],
    ),
]
Concurrency = Annotated[int, Query(ge=1, le=1000, description="Trials at one time.")]


@router.get(
    "",
    operation_id="list_presets",
    summary="Standing questions that are answered in one call",
    response_model=bodies.PresetList,
    responses=documented(INVALID_QUERY),
)
def list_presets() -> Response:
    """List the presets."""
    listed = [
        bodies.PresetSummary(
            name=name,
            title=title,
            description=description,
            links={"self": f"/v1/studies/presets/{name}"},
        )
        for name, (title, description) in TITLES.items()
    ]
    return json_answer(bodies.PresetList(presets=listed))


@router.get(
    "/spread-scale",
    operation_id="get_spread_scale_preset",
    summary="How much of which noise a δ-VAE should be trained with",
    response_model=bodies.PresetBody,
    responses=documented(INVALID_QUERY),
)
def get_spread_scale_preset(
    services: Given,
    dataset: Dataset,
    epochs: Annotated[int, Query(ge=3, le=100_000, description="Passes over the data.")] = 60,
    trials: Annotated[int, Query(ge=1, le=10_000, description="Configurations.")] = 27,
    concurrency: Concurrency = 1,
    learned: Annotated[
        bool, Query(description="Whether a learned covariance is tried beside none.")
    ] = True,
    hidden: Annotated[
        str,
        Query(
            pattern=r"^[1-9][0-9]{0,3}(,[1-9][0-9]{0,3}){0,7}$",
            description="Widths of the network's layers, as 400,400.",
        ),
    ] = "400,400",
    latent_dim: Annotated[int, Query(ge=1, le=1024, description="Dimensions of z.")] = 64,
    features: Annotated[
        Features | None,
        Query(description="A network in whose features KID is taken, for pictures; else PCA."),
    ] = None,
    check: Annotated[
        Features | None,
        Query(
            description="Another network, for pictures, in whose features all distances are taken "
            "too: `…/best` says whether they order the noises otherwise. On a CPU it may double "
            "the time of a trial.",
        ),
    ] = None,
) -> Response:
    """Make the submission for a data set: Gaussian against Laplace, the scale log-uniform, a
    learned covariance or none, ranked by KID on 5,000 samples, with ASHA from a third of the
    epochs on."""
    widths = tuple(int(width) for width in hidden.split(","))
    options = SpreadScale(
        dataset, epochs, trials, concurrency, learned, widths, latent_dim, features, check
    )
    return json_answer(_body(services.presets.spread_scale(options)))


@router.get(
    "/ica-sigma",
    operation_id="get_ica_sigma_preset",
    summary="Which noise an ICA fit should assume",
    response_model=bodies.PresetBody,
    responses=documented(INVALID_QUERY),
)
def get_ica_sigma_preset(
    services: Given,
    dataset: Dataset = "laplace-ica",
    components: Annotated[
        int | None, Query(ge=1, le=256, description="Sources; without it the fit chooses.")
    ] = None,
    low: Annotated[float, Query(ge=1e-4, le=1e4, description="Least deviation.")] = 0.02,
    high: Annotated[float, Query(ge=1e-4, le=1e4, description="Largest deviation.")] = 2.0,
    trials: Annotated[int, Query(ge=1, le=10_000, description="Configurations.")] = 20,
    concurrency: Concurrency = 1,
) -> Response:
    """Make the submission for a data set: the noise's variance log-uniform, ranked by the error of
    A where A is known (``laplace-ica``), and else by the evidence of clean held-out data."""
    options = IcaSigma(dataset, components, low, high, trials, concurrency)
    return json_answer(_body(services.presets.ica_sigma(options)))


def _body(preset: Preset) -> bodies.PresetBody:
    return bodies.PresetBody(
        name=preset.name,
        title=preset.title,
        request=dict(preset.request),
        plots=[list(plot) for plot in preset.plots],
        notes=list(preset.notes),
    )
