"""The trainers that a spec can name, and their schemas."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from service.errors import UnknownTrainer
from workers.spec import (
    GradientTrainer,
    Ica,
    IcaSpec,
    Paper,
    PaperSpec,
    RefitEncoder,
    RefitSpec,
    TrainerSpec,
    TrainSpec,
)

_TITLES = {
    "delta_vae": "δ-VAE, trained by spread divergence",
    "vae": "VAE, the baseline",
    "ica": "Linear ICA, fitted by spread EM",
    "refit_encoder": "Encoders fitted anew to a decoder, at reference scales",
    "paper": "A figure of the paper, with what holds of its claims",
}


@dataclass(frozen=True, slots=True)
class TrainerInfo:
    """A trainer: ``name`` is its ``kind`` in a spec."""

    name: str
    title: str
    description: str


class Catalogue:
    """Lists the trainers."""

    def trainers(self) -> list[TrainerInfo]:
        """Every trainer."""
        return [
            TrainerInfo(
                name, _TITLES[name], " ".join(inspect.cleandoc(model.__doc__ or "").split())
            )
            for name, model in _models().items()
        ]

    def schema(self, trainer: str) -> dict[str, Any]:
        """JSON Schema of a whole spec with this trainer; raises UnknownTrainer."""
        model = _models().get(trainer)
        if model is None:
            known = ", ".join(_models())
            raise UnknownTrainer(f"there is no trainer {trainer!r}; the trainers are {known}")
        whole = _WHOLE.get(model, TrainSpec)
        schema = whole.model_json_schema()
        schema["properties"]["trainer"] = {"$ref": f"#/$defs/{model.__name__}"}
        schema["title"] = f"TrainSpec of {trainer}"
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
        needed = _referenced(schema, schema["$defs"])
        schema["$defs"] = {
            name: schema["$defs"][name] for name in schema["$defs"] if name in needed
        }
        return schema


_Model = type[GradientTrainer | Ica | RefitEncoder | Paper]
_WHOLE: Mapping[_Model, type[TrainSpec | IcaSpec | RefitSpec | PaperSpec]] = {
    Ica: IcaSpec,
    RefitEncoder: RefitSpec,
    Paper: PaperSpec,
}


def _models() -> dict[str, _Model]:
    models = (*get_args(get_args(TrainerSpec)[0]), Ica, RefitEncoder, Paper)
    return {get_args(model.model_fields["kind"].annotation)[0]: model for model in models}


def _referenced(schema: dict[str, Any], definitions: dict[str, Any]) -> set[str]:
    """Names of the definitions that the schema's properties need, directly or not."""
    needed: set[str] = set()
    pending: list[Any] = [schema["properties"]]
    while pending:
        match pending.pop():
            case {"$ref": str(reference)} as node:
                name = reference.rsplit("/", 1)[1]
                if name not in needed:
                    needed.add(name)
                    pending.append(definitions[name])
                pending.extend(value for key, value in node.items() if key != "$ref")
            case dict() as node:
                pending.extend(node.values())
            case list() as nodes:
                pending.extend(nodes)
            case _:
                pass
    return needed
