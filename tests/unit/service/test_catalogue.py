import json
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from service.catalogue import Catalogue
from service.errors import UnknownTrainer
from workers.spec import (
    Ica,
    IcaSpec,
    MlpNetwork,
    Optimizer,
    Paper,
    PaperSpec,
    RefitEncoder,
    RefitSpec,
    TrainerSpec,
    TrainSpec,
)

KINDS = [
    get_args(model.model_fields["kind"].annotation)[0]
    for model in (*get_args(get_args(TrainerSpec)[0]), Ica, RefitEncoder, Paper)
]


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue()


def test_every_trainer_is_listed_with_its_title(catalogue: Catalogue) -> None:
    trainers = catalogue.trainers()
    assert [trainer.name for trainer in trainers] == KINDS
    for trainer in trainers:
        assert trainer.title
        assert len(trainer.description) > 20
        assert "\n" not in trainer.description


def test_an_unknown_trainer_is_not_found_and_the_known_ones_are_named(
    catalogue: Catalogue,
) -> None:
    with pytest.raises(UnknownTrainer, match="delta_vae, vae, ica"):
        catalogue.schema("gan")


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set[str]()
        return own.union(*(references(value) for value in node.values()))
    if isinstance(node, list):
        return set[str]().union(*(references(value) for value in node))
    return set()


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_is_of_a_whole_spec_with_this_trainer_and_no_other(
    catalogue: Catalogue, kind: str
) -> None:
    schema = json.loads(json.dumps(catalogue.schema(kind), allow_nan=False))
    wholes: dict[str, type[BaseModel]] = {
        "ica": IcaSpec,
        "refit_encoder": RefitSpec,
        "paper": PaperSpec,
    }
    spec = wholes.get(kind, TrainSpec)
    assert set(schema["properties"]) == set(spec.model_fields)
    trainer = schema["$defs"][schema["properties"]["trainer"]["$ref"].rsplit("/", 1)[1]]
    assert trainer["properties"]["kind"]["const"] == kind
    kinds = [
        definition["properties"]["kind"]["const"]
        for definition in schema["$defs"].values()
        if "const" in definition.get("properties", {}).get("kind", {})
    ]
    assert [other for other in KINDS if other in kinds] == [kind]
    # Every reference has its definition, and every definition is used.
    assert references(schema) == {f"#/$defs/{name}" for name in schema["$defs"]}


def test_a_schema_has_titles_descriptions_bounds_and_defaults(catalogue: Catalogue) -> None:
    definitions = catalogue.schema("delta_vae")["$defs"]
    for model in (MlpNetwork, Optimizer):
        for name, field in definitions[model.__name__]["properties"].items():
            assert field.get("title") or "$ref" in json.dumps(field), name
            assert field.get("description") or name == "kind", name
    batch = definitions["DeltaVae"]["properties"]["batch_size"]
    assert (batch["default"], batch["minimum"], batch["maximum"]) == (100, 1, 65_536)
