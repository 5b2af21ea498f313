"""The data sets that a spec can name."""

from fastapi import APIRouter
from starlette.responses import Response

from api import bodies
from api.dependencies import Given
from api.errors import INVALID_QUERY, documented
from api.jobs import json_answer
from api.routes import StrictRoute

router = APIRouter(prefix="/v1/datasets", tags=["discovery"], route_class=StrictRoute)


@router.get(
    "",
    operation_id="list_datasets",
    summary="Data sets",
    response_model=bodies.DatasetList,
    responses=documented(INVALID_QUERY),
)
def list_datasets(services: Given) -> Response:
    """List the data sets, also those whose files are not here, with what to do about it."""
    found = services.catalogue.datasets()
    return json_answer(
        bodies.DatasetList(
            datasets=[
                bodies.DatasetBody(
                    name=info.name,
                    title=info.title,
                    shape=list(info.shape),
                    count=info.count,
                    is_image=info.is_image,
                    digest=info.digest,
                    available=info.available,
                    detail=info.detail,
                )
                for info in found
            ]
        )
    )
