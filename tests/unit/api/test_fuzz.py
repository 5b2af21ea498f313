"""What an OpenAPI document cannot describe, so that tests/fuzz does not send it.

That is NaN and bytes that are no JSON, and the headers of HTTP itself.
"""

import copy
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.trials import KIND, SCALE, study_body
from tests.unit.api.conftest import DIGITS, Running
from tests.unit.api.test_problems import problem

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["laplace", "vae", "ica", "ring", "laplace-ica", "mlp", "named", "2"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
BODIES = (
    DIGITS,
    {
        "spec": {
            "dataset": {"kind": "laplace-ica", "samples": 100},
            "trainer": {
                "kind": "ica",
                "components": 1,
                "prior": {"kind": "student_t", "degrees": 3},
                "start": "given",
                "mixing": [[1.0]] * 10,
            },
        },
    },
)
STUDIES = (
    study_body(seeds=[0, 7], confirmation={"top": 2, "seeds": [1, 2]}),
    study_body(
        space={
            KIND: {"choice": ["gaussian", "laplace"]},
            SCALE: {"uniform": [0.1, 0.9], "step": 0.2, "when": {KIND: ["laplace"]}},
        },
        search={"kind": "grid"},
        scheduler={"kind": "asha", "grace_epochs": 3},
        second_objective={"metric": "recall", "mode": "max"},
    ),
)
QUICK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def places(value: Any, keys: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The paths of all values in a body."""
    inner: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [keys, *(place for key, item in inner for place in places(item, (*keys, key)))]


def replaced(body: Any, keys: tuple[str | int, ...], value: Any) -> Any:
    """The body with another value at a path."""
    if not keys:
        return value
    body = copy.deepcopy(body)
    target = body
    for key in keys[:-1]:
        target = target[key]
    target[keys[-1]] = value
    return body


def sent(running: Running, body: Any, path: str = "/v1/jobs") -> None:
    # The client's own encoder refuses NaN; Python's writes it, as careless clients do.
    content = json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    answer = running.http.post(f"{path}?dry_run=true", content=content, headers=headers)
    if answer.status_code == 200:
        return
    assert answer.status_code in (400, 422, 507), answer.text
    found = problem(answer, answer.status_code, answer.json()["type"].rpartition("/")[2])
    if answer.status_code == 422:
        assert found["errors"]


@QUICK
@given(data=st.data(), value=VALUES)
def test_a_good_body_with_any_value_anywhere_is_answered(
    running: Running, data: st.DataObject, value: Any
) -> None:
    body = data.draw(st.sampled_from(BODIES))
    keys = data.draw(st.sampled_from(places(body)))
    sent(running, replaced(body, keys, value))


@QUICK
@given(data=st.data(), value=VALUES)
def test_a_good_study_with_any_value_anywhere_is_answered(
    running: Running, data: st.DataObject, value: Any
) -> None:
    body = data.draw(st.sampled_from(STUDIES))
    keys = data.draw(st.sampled_from(places(body)))
    sent(running, replaced(body, keys, value), "/v1/studies")


@QUICK
@given(content=st.binary(max_size=200))
def test_any_bytes_are_answered(running: Running, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = running.http.post("/v1/jobs?dry_run=true", content=content, headers=headers)
    assert answer.status_code in (400, 422)


@QUICK
@given(
    header=st.sampled_from(
        ["Accept", "Range", "If-None-Match", "If-Range", "X-Request-ID", "Last-Event-ID"]
    ),
    value=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
    below=st.sampled_from(["", "/samples?n=1", "/events", "/checkpoints/latest/weights"]),
)
def test_any_header_is_answered(running: Running, header: str, value: str, below: str) -> None:
    path = f"/v1/jobs/{running.trained}{below}"
    answer = running.http.get(path, headers={header: value})
    assert answer.status_code in (200, 206, 304, 406, 416, 422)
