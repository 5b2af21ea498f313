"""A small run of the fuzzing; the long one is ``make fuzz``."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi.responses import JSONResponse

from api.app import create_app
from service.settings import Settings
from tests.fuzz.fuzzing import PHASES, documented_forms, fuzz
from tests.fuzz.service import Fuzzed, fuzzed_service

EXAMPLES = 4
# Half a minute of specs, field by field, which make fuzz has.
LONG_COVERAGE = ("submit_job",)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    with fuzzed_service(tmp_path_factory.mktemp("fuzzed")) as service:
        yield service


def with_route(fuzzed: Fuzzed, path: str, handler: Callable[..., Any]) -> Fuzzed:
    """The same service behind an application with one route more."""
    app = create_app(fuzzed.services, Settings(data_dir=fuzzed.folder))
    app.get(path, operation_id=handler.__name__)(handler)
    return replace(fuzzed, app=app)


def test_every_operation_keeps_to_the_openapi_document(fuzzed: Fuzzed) -> None:
    report = fuzz(fuzzed, max_examples=EXAMPLES, deterministic=True, without_coverage=LONG_COVERAGE)
    assert not report.problems, "\n\n".join(report.problems[:5])
    assert {phase for phase, _ in report.requests} == set(PHASES)
    assert report.chains >= EXAMPLES
    described = {
        f"{method.upper()} {path}": operation
        for path, operations in fuzzed.app.openapi()["paths"].items()
        for method, operation in operations.items()
    }
    assert set(report.statuses) == set(described)
    for label, operation in described.items():
        # 409 is an answer about a thing that is there, too.
        assert any(200 <= status < 300 or status == 409 for status in report.statuses[label]), label
        forms = documented_forms(operation)
        assert len(forms) < 2 or set(forms) <= report.forms[label], label


def test_what_the_document_does_not_say_is_found(fuzzed: Fuzzed) -> None:
    def faulty(n: int = 0) -> Any:
        if n < 0:
            raise ZeroDivisionError
        return JSONResponse({}, status_code=418 if n > 0 else 200)

    report = fuzz(
        with_route(fuzzed, "/v1/faulty", faulty),
        max_examples=20,
        deterministic=True,
        phases=["coverage", "fuzzing"],
        only=["faulty"],
    )
    found = "\n".join(report.problems)
    for check in (
        *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
        "positive_data_acceptance",
    ):
        assert check in found
    assert {operation for _, operation in report.requests} == {"GET /v1/faulty"}


def test_a_path_that_leads_to_nothing_is_told(fuzzed: Fuzzed) -> None:
    def unknown(thing: str) -> str:
        return thing

    more = with_route(fuzzed, "/v1/things/{thing}/parts", unknown)
    with pytest.raises(AssertionError, match=r"nothing is known for /v1/things/\{thing\}:"):
        fuzz(more, max_examples=1)
