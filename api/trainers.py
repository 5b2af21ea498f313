"""The trainers that a spec can name, and the schemas of their specs."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.responses import Response

from api import bodies
from api.dependencies import Given
from api.errors import INVALID_QUERY, SERVICE_PROBLEMS, documented
from api.jobs import json_answer
from api.routes import StrictRoute
from service import errors

router = APIRouter(prefix="/v1/trainers", tags=["discovery"], route_class=StrictRoute)


@router.get(
    "",
    operation_id="list_trainers",
    summary="Trainers",
    response_model=bodies.TrainerList,
    responses=documented(INVALID_QUERY),
)
def list_trainers(services: Given) -> Response:
    """List the trainers."""
    found = services.catalogue.trainers()
    return json_answer(
        bodies.TrainerList(
            trainers=[
                bodies.TrainerBody(
                    name=info.name,
                    title=info.title,
                    description=info.description,
                    links={"schema": f"/v1/trainers/{info.name}/schema"},
                )
                for info in found
            ]
        )
    )


@router.get(
    "/{name}/schema",
    operation_id="get_trainer_schema",
    summary="JSON Schema of a trainer's spec",
    response_model=dict[str, Any],
    responses=documented(SERVICE_PROBLEMS[errors.UnknownTrainer], INVALID_QUERY),
)
def get_trainer_schema(
    name: Annotated[str, Path(description="Name of the trainer.")],
    services: Given,
) -> Response:
    """Answer with the schema of a spec with this trainer: descriptions, bounds, defaults."""
    return Response(json.dumps(services.catalogue.schema(name)), media_type="application/json")
