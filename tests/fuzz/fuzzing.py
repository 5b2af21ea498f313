"""Schemathesis against the service: what it is told, what it asks, what it finds.

What it knows is the OpenAPI document of the application, so it takes in new operations by itself.
All of its checks are on. Only three things are told to it here, each with its reason: values of
path parameters that lead to something, bodies that can be carried out, and when a request that
follows the document may be refused all the same.
"""

import contextlib
import copy
import zlib
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Any

import hypothesis
import schemathesis
from schemathesis import HookContext, Response
from schemathesis.config import ProjectConfig
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.engine import events, from_schema
from schemathesis.openapi.checks import EnsureResourceAvailability, RejectedPositiveData
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.fuzz.refusals import ANSWERS, REFUSALS, is_right
from tests.fuzz.report import Report
from tests.fuzz.service import LOCAL, MIXED, NOISES, PICTURES, VECTORS, Fuzzed, upload
from tests.unit.workers.uploading import GOOD

Case = schemathesis.Case[Any]
PHASES = ("examples", "coverage", "fuzzing", "stateful")
STREAM_S = 0.05
NO_JSON = "in body - invalid syntax"  # how schemathesis says it
_NO_ANSWERS = {"extra-data-sources": {"responses": False}}
# The combinations of a search space's forms take schemathesis minutes to list; tests/unit/api has a
# fuzzing of its own for the body.
_WITHOUT_COVERAGE = ("submit_study",)
KNOWN_SHARE = 0.8  # of path parameters that lead to something


def fuzz(
    fuzzed: Fuzzed,
    *,
    max_examples: int,
    seed: int = 1,
    deterministic: bool = False,
    phases: Sequence[str] = PHASES,
    only: Sequence[str] = (),
    without_coverage: Sequence[str] = (),
    tell: Callable[[str], object] = lambda line: None,
) -> Report:
    """Ask with ``max_examples`` random requests an operation, those of the document besides.

    Operations ``without_coverage`` are left out of the phase of that name. With the phase
    ``stateful`` also with as many chains of requests. A chain depends on how far a job is, which
    Hypothesis takes as a reason to end: then another round begins, with other seeds.
    """
    report = Report()
    described = _document(fuzzed)

    def ask(examples: int, seed: int, phases: Sequence[str]) -> Any:
        config = _config(described, examples, seed, deterministic, phases, only, without_coverage)
        schema = schemathesis.openapi.from_dict(described, config=config)
        schema.app = _served(fuzzed)
        _do_not_climb(schema.config)
        _add_hooks(schema, fuzzed)
        for event in from_schema(schema).execute():
            if isinstance(event, events.NonFatalError):
                report.problems.append(f"{event.label}: {event.info.title}: {event.value}")
            elif isinstance(event, events.ScenarioFinished):
                report.take_in(event)
                report.disk_bytes = max(report.disk_bytes, fuzzed.disk_bytes())
                if event.phase.value != "stateful":
                    tell(f"{event.phase.value:9} {event.elapsed_time:6.1f} s  {event.label}")
        return schema

    schema = ask(max_examples, seed, phases)
    if "fuzzing" in phases:
        report.problems += _cut_short(schema, report, max_examples, only)
    while "stateful" in phases and report.chains < max_examples:
        seed, before = seed + 1, report.chains
        ask(max_examples - before, seed, ["stateful"])
        tell(f"stateful  {report.chains} chains")
        if report.chains == before:
            report.problems.append(f"only {before} of {max_examples} chains were made")
            break
    return report


def _cut_short(
    schema: Any, report: Report, max_examples: int, only: Sequence[str]
) -> Iterator[str]:
    """The operations that were asked less than they should have been."""
    for result in schema.get_all_operations():
        operation = result.ok()
        raw = operation.definition.raw
        if only and raw["operationId"] not in only:
            continue
        asked = report.requests["fuzzing", operation.label]
        # Without parameters there is but one request.
        wanted = max_examples if raw.get("parameters") or raw.get("requestBody") else 1
        if asked < wanted:
            yield f"{operation.label}: only {asked} of {wanted} random requests were made"


def _document(fuzzed: Fuzzed) -> dict[str, Any]:
    """The application's document, with examples that lead to something."""
    described = copy.deepcopy(fuzzed.app.openapi())
    # A study's spec is a job's, which is asked of at POST /v1/jobs; with a few that are right the
    # other fields of a study are asked of, and the combinations stay countable.
    studied = described["components"]["schemas"]["StudyRequest"]["properties"]
    studied["spec"] = {"enum": [NOISES["spec"]]}
    for path, operations in described["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    parameter["schema"]["examples"] = fuzzed.values(path, parameter["name"])
                if (operation["operationId"], parameter["name"]) == ("get_pareto", "second"):
                    parameter["schema"]["examples"] = ["recall", "recall_pca", "kid", "kid_pca"]
            if operation["operationId"] == "submit_study":
                content = operation["requestBody"]["content"]["application/json"]
                content["examples"] = {NOISES["name"]: {"value": NOISES}}
            if operation["operationId"] == "promote_trial":
                content = operation["requestBody"]["content"]["application/json"]
                # Its trial has trained for two epochs.
                longer = {"configuration": 0, "epochs": 5}
                content["examples"] = {"longer": {"value": longer}}
            if operation["operationId"] == "submit_job":
                content = operation["requestBody"]["content"]["application/json"]
                content["examples"] = {
                    body["name"]: {"value": body} for body in (PICTURES, VECTORS, MIXED)
                }
    return described


def _config(
    described: dict[str, Any],
    max_examples: int,
    seed: int,
    deterministic: bool,
    phases: Sequence[str],
    only: Sequence[str],
    without_coverage: Sequence[str],
) -> schemathesis.Config:
    dictionaries: dict[str, Any] = {}
    operations: list[dict[str, Any]] = []
    for methods in described["paths"].values():
        for operation in methods.values():
            operation_id, parameters = operation["operationId"], {}
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    name = f"{operation_id}-{parameter['name']}"
                    dictionaries[name] = {"values": parameter["schema"]["examples"]}
                    parameters[f"path.{parameter['name']}"] = {
                        "dictionary": name,
                        "probability": KNOWN_SHARE,
                    }
            entry: dict[str, Any] = {
                "include-operation-id": operation_id,
                "enabled": not only or operation_id in only,
                "parameters": parameters,
            }
            if operation_id in (*_WITHOUT_COVERAGE, *without_coverage):
                entry["phases"] = {"coverage": {"enabled": False}}
            operations.append(entry)
    return schemathesis.Config.from_dict(
        {
            "seed": seed,
            "base-url": LOCAL,
            "workers": 1,
            "continue-on-failure": True,
            "dictionaries": dictionaries,
            "operations": operations,
            "generation": {
                "deterministic": deterministic,
                "max-examples": max_examples,
                "database": "none",
            },
            "cache": {"enabled": False},
            "phases": {
                # Values from earlier answers would change what Hypothesis draws while it draws,
                # upon which it ends an operation's run early, and schemathesis does not say so.
                "examples": {"enabled": "examples" in phases, **_NO_ANSWERS},
                "coverage": {"enabled": "coverage" in phases, **_NO_ANSWERS},
                "fuzzing": {
                    "enabled": "fuzzing" in phases,
                    "error-feedback": {"enabled": False},
                    **_NO_ANSWERS,
                },
                "stateful": {"enabled": "stateful" in phases},
            },
            "checks": {
                "positive_data_acceptance": {"expected-statuses": ANSWERS},
                "negative_data_rejection": {"expected-statuses": REFUSALS},
            },
            # The literals of our own source would make the run depend on unrelated edits.
            "analysis": {"constants": {"enabled": False}},
        }
    )


def _do_not_climb(config: ProjectConfig) -> None:
    """Leave out Hypothesis' search for requests that succeed: known values are there from the
    beginning, and on a long text the search takes minutes without one request more."""
    settings_of = config.get_hypothesis_settings

    def settings(**options: Any) -> hypothesis.settings:
        found = settings_of(**options)
        phases = [phase for phase in found.phases if phase is not hypothesis.Phase.target]
        return hypothesis.settings(found, phases=phases)

    setattr(config, "get_hypothesis_settings", settings)  # noqa: B010  # there is no option


def _served(fuzzed: Fuzzed) -> ASGIApp:
    """The application as a server runs it: an exception is its 500, not the server's end.

    Accept comes as X-Accept, as schemathesis has an Accept of its own for an application.
    """

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", []))
        if b"x-accept" in headers:
            headers[b"accept"] = headers.pop(b"x-accept")
            scope = {**scope, "headers": list(headers.items())}
        with contextlib.suppress(Exception):
            await fuzzed.app(scope, receive, send)

    return served


def _add_hooks(schema: Any, fuzzed: Fuzzed) -> None:
    turns: dict[str, dict[str, int]] = {}
    deleted: set[str] = set()

    def map_body(context: HookContext, body: Any) -> Any:
        """Every other upload is a file that is a data set, and posted archives hold data."""
        assert context.operation is not None
        operation = context.operation.definition.raw["operationId"]
        if operation == "find_sources" and isinstance(body, bytes):
            return upload() if _number(body) % 2 else body
        if operation != "put_dataset":
            return body
        number = _number(body)
        files = list(GOOD.values())
        return files[number // 2 % len(files)] if number % 2 else body

    def map_case(context: HookContext, case: Case) -> Case:
        """Ask for every documented representation in turn, and for no stream without an end."""
        forms = documented_forms(case.operation.definition.raw)
        if len(forms) > 1 and "X-Accept" not in case.headers:
            # The same request always gets the same turn: one that failed is repeated.
            asked = turns.setdefault(case.operation.label, {})
            turn = asked.setdefault(repr((case.path_parameters, case.query)), len(asked))
            case.headers["X-Accept"] = forms[turn % len(forms)]
        if "timeout_s" in _query_names(case) and _is_longer(case.query.get("timeout_s", 1)):
            case.query["timeout_s"] = STREAM_S
        if case.method == "DELETE" or case.path.endswith("/cancel"):
            _spare(case, fuzzed)
        return case

    def after_call(context: HookContext, case: Case, response: Response) -> None:
        """Let no jobs pile up, and none train for long."""
        if case.method == "DELETE" and response.status_code == HTTPStatus.NO_CONTENT:
            deleted.update(map(str, (case.path_parameters or {}).values()))
        fuzzed.restrain()

    def filter_failure(
        context: HookContext,
        failure: Failure,
        case: Case,
        response: Response,
    ) -> bool:
        """Whether a failure is one."""
        if isinstance(failure, EnsureResourceAvailability):
            # Two requests with the same idempotency key are given the same job, and schemathesis
            # sees a deletion of what the one was given as none of the other's.
            return not deleted.intersection(map(str, (case.path_parameters or {}).values()))
        if isinstance(failure, AcceptedNegativeData):
            # A link may have put an earlier answer in the place of bytes that were no JSON.
            return not (NO_JSON in failure.message and isinstance(case.body, dict))
        return not (isinstance(failure, RejectedPositiveData) and is_right(case, response))

    def before_add_examples(context: HookContext, examples: list[Case]) -> None:
        """The document's examples do not come by ``map_case``."""
        examples[:] = [map_case(context, case) for case in examples]

    for hook in (map_body, map_case, before_add_examples, after_call, filter_failure):
        schema.hook(hook)


def _spare(case: Case, fuzzed: Fuzzed) -> None:
    """Let an end go to something else than what the other operations are asked about."""
    for name, value in (case.path_parameters or {}).items():
        if value in fuzzed.kept:
            spare = fuzzed.spare_studies if name == "study_id" else fuzzed.spare
            case.path_parameters[name] = spare[_number(case.headers) % len(spare)]


def _number(value: object) -> int:
    return zlib.crc32(repr(value).encode("utf-8", "replace"))


def documented_forms(operation: Any) -> list[str]:
    """The media types of an operation's answer."""
    content = operation["responses"].get("200", {}).get("content", {})
    return [form for form in content if "*" not in form]


def _is_longer(given: Any) -> bool:
    """Whether a time limit is one, and longer than a stream may last here."""
    try:
        return float(given) > STREAM_S
    except (TypeError, ValueError):
        return False


def _query_names(case: Case) -> set[str]:
    return {
        parameter["name"]
        for parameter in case.operation.definition.raw.get("parameters", [])
        if parameter["in"] == "query"
    }
