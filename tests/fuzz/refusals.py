"""When a request may be refused though it follows the OpenAPI document."""

import json
import re
from typing import Any

from schemathesis import Case, Response

from api.errors import INVALID_QUERY, MEDIA_TYPE, SERVICE_PROBLEMS

# It is answered, or there is nothing there (404), or the state of things forbids it (409).
ANSWERS = ["2xx", "3xx", "404", "409"]
# What does not follow the document is refused with one of these, and with no error of the service.
REFUSALS = ["400", "404", "405", "406", "409", "412", "413", "415", "416", "421", "422", "428"]

# The service refuses for reasons that no schema can hold: a data set that does not exist, a job
# that is too large, an ETag that is not the present one. What the HTTP layer refuses
# (invalid-body, invalid-header, invalid-query) must be in the document ...
_BY_THE_SERVICE = frozenset(
    kind.type
    for kind in SERVICE_PROBLEMS.values()
    if kind.status in (412, 422, 428) and kind is not INVALID_QUERY
)
# ... but for these places, by operation.
_N = {"/query/n": "its bound depends on the form and the size of the answer"}
_STEPS = dict.fromkeys(
    (f"/spec/trainer/{noise}/schedule/steps" for noise in ("spread", "observation")),
    "no schema says that the epochs of its steps rise",
)
_PLACES: dict[str, dict[str, str]] = {
    "submit_job": _STEPS,
    "list_studies": {"/query/cursor": "opaque as well"},
    "list_trials": {"/query/cursor": "opaque as well"},
    "submit_study": {
        **_STEPS,
        "/space": "no schema says that a range ends above its beginning",
    },
    "get_curve": {
        "/query/parameter": "what is tuned differs from study to study",
        "/query/metric": "metrics differ as well",
    },
    "get_pareto": {"/query/second": "metrics differ from study to study"},
    "get_importance": {"/query/metric": "metrics differ from study to study"},
    "get_parallel": {"/query/metric": "metrics differ from study to study"},
    "get_study_samples": {
        **_N,
        "/query/k": "trials may differ in the shape of their data",
    },
    "get_spread_scale_preset": {"/query/dataset": "only the service knows its data sets"},
    "get_ica_sigma_preset": {
        "/query/dataset": "only the service knows its data sets",
        "/query/low": "no schema says that it is below high",
    },
    "list_jobs": {"/query/cursor": "opaque: only the service knows which ones it has given out"},
    "get_logs": {
        "/query/after": "opaque as well",
        "/query/tail": "no schema says that it excludes another parameter, after",
    },
    "get_filmstrip": {"/query/epochs": "those that have a checkpoint differ from job to job"},
    "get_metrics": {"/query/name": "metrics differ from job to job"},
    "get_samples": _N,
    "get_reconstructions": _N,
    "get_interpolations": _N,
    "fork_job": {"/spec": "a merge patch: only with the parent's spec it is a spec"},
}


def is_right(case: Case[Any], response: Response) -> bool:
    """Whether a request that was called valid is refused for a good reason."""
    if response.headers.get("content-type", [""])[0] != MEDIA_TYPE:
        return False
    problem = json.loads(response.content)
    if problem["type"] in _BY_THE_SERVICE or _has_header_outside_its_pattern(case):
        return True
    places = _PLACES.get(case.operation.definition.raw["operationId"], {})
    found = [error["pointer"] for error in problem["errors"]]
    return bool(found) and all(
        any(pointer == place or pointer.startswith(f"{place}/") for place in places)
        for pointer in found
    )


def _has_header_outside_its_pattern(case: Case[Any]) -> bool:
    """Whether it is not valid at all: schemathesis sends 0 for a header with a pattern at times."""
    return any(
        parameter["in"] == "header"
        and "pattern" in parameter["schema"]
        and parameter["name"] in case.headers
        and not re.search(parameter["schema"]["pattern"], case.headers[parameter["name"]])
        for parameter in case.operation.definition.raw.get("parameters", [])
    )
