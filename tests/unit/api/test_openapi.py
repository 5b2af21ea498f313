import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from api import bodies
from api.app import describe
from api.examples import EXAMPLES
from api.links import LINKS
from api.openapi import DEFAULT_PATH, render
from service.jobs import JobRequest
from workers.spec import TrainSpec

ROOT = Path(__file__).parents[3]
SPECS = ROOT / "tests" / "unit" / "workers" / "specs"
DOCUMENT = describe()
OPERATIONS = [
    (f"{method.upper()} {path}", operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
]


def test_the_document_in_the_repository_is_that_of_the_code() -> None:
    stored = (ROOT / DEFAULT_PATH).read_text(encoding="utf-8")
    assert stored == render(), "run: python -m api.openapi"


def test_operations_have_names_of_their_own() -> None:
    names = [operation["operationId"] for _, operation in OPERATIONS]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() and name.islower() for name in names)


@pytest.mark.parametrize(("name", "operation"), OPERATIONS)
def test_every_status_is_documented_with_an_example(name: str, operation: dict[str, Any]) -> None:
    assert operation["summary"]
    answers = operation["responses"]
    assert {"421", "422", "500", "503"} <= set(answers)
    for status, answer in answers.items():
        assert answer["description"]
        for media_type, content in answer.get("content", {}).items():
            if media_type == "application/problem+json":
                for example in content["examples"].values():
                    assert example["value"]["status"] == int(status)
                    bodies.Problem.model_validate(example["value"])
            elif "itemSchema" in content or "$ref" in content["schema"]:
                assert content["example"], f"{name} {status}"


ASKED = DOCUMENT["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]


@pytest.mark.parametrize("name", ASKED["examples"])
def test_every_example_of_a_submission_is_one(name: str) -> None:
    JobRequest.model_validate_json(json.dumps(ASKED["examples"][name]["value"]))


def test_the_papers_network_for_celeba_is_an_example() -> None:
    """That of a stored spec, whose layers tests/unit/workers/test_build.py looks at."""
    spec = JobRequest.model_validate_json(json.dumps(ASKED["examples"]["celeba"]["value"])).spec
    stored = TrainSpec.model_validate_json((SPECS / "v1-celeba.json").read_text())
    assert isinstance(spec, TrainSpec)
    assert spec.dataset == stored.dataset
    for part in ("spread", "optimizer", "epochs", "batch_size"):
        assert getattr(spec.trainer, part) == getattr(stored.trainer, part)
    networks = [each.trainer.network for each in (spec, stored)]
    assert networks[0].model_copy(update={"output": "sigmoid"}) == networks[1]


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_one(name: str) -> None:
    model = JobRequest if name == "JobRequest" else getattr(bodies, name)
    parsed = model.model_validate_json(json.dumps(EXAMPLES[name]))
    if name != "JobRequest":
        assert json.loads(parsed.model_dump_json()) == EXAMPLES[name]


def test_every_reference_leads_somewhere() -> None:
    text = json.dumps(DOCUMENT)
    names = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= set(DOCUMENT["components"]["schemas"])
    assert "HTTPValidationError" not in DOCUMENT["components"]["schemas"]


def test_every_link_leads_from_an_answer_to_an_operation_and_its_parameters() -> None:
    by_id = {operation["operationId"]: operation for _, operation in OPERATIONS}
    for (origin, status), links in LINKS.items():
        assert by_id[origin]["responses"][status]["links"] == links
        for link in links.values():
            target = by_id[link["operationId"]]
            names = {parameter["name"] for parameter in target.get("parameters", [])}
            assert set(link.get("parameters", {})) <= names
            assert "requestBody" not in link or "requestBody" in target


def test_no_parameter_is_said_to_be_null_or_to_hold_nul() -> None:
    for name, operation in OPERATIONS:
        parameters = operation.get("parameters", [])
        assert '"null"' not in json.dumps(parameters)
        for parameter in parameters:
            schema = parameter["schema"].get("items", parameter["schema"])
            if parameter["in"] == "query" and schema.get("type") == "string":
                allowed = schema.get("enum") or schema["pattern"]
                assert isinstance(allowed, list) or not re.search(allowed, "\0"), name


def test_the_service_shows_the_same_document(quiet: Any) -> None:
    assert quiet.http.get("/openapi.json").json() == DOCUMENT


@pytest.mark.parametrize("module", ["api.client", "api.cli"])
def test_the_client_needs_neither_torch_nor_the_server(module: str) -> None:
    heavy = ("torch", "ray", "fastapi", "starlette", "numpy", "sqlalchemy")
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
