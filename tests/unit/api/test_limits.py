"""What one key may use, and how much is answered at one time."""

import contextlib
from typing import Any

import pytest

from api.crowd import PROBES_AT_ONCE, Crowd, Crowded, Lane
from api.guard import Guard
from service.access.keys import KeyLimits, Scope
from service.access.rates import BURST_S, Rates
from tests.trials import study_body
from tests.unit.api.conftest import Quiet
from tests.unit.api.keyed import body, holder
from tests.unit.api.test_problems import problem
from tests.unit.workers.uploading import GOOD


class Clock:
    """A clock that goes when it is told to."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def refused(answer: Any, kind: str) -> None:
    """The answer is 429, and says when to ask again."""
    found = problem(answer, 429, kind)
    assert found["retryable"]
    assert int(answer.headers["retry-after"]) >= 1


def test_jobs_beyond_the_keys_limit_are_refused_until_one_has_ended(quiet: Quiet) -> None:
    ana = holder(quiet, "ana", limits=KeyLimits(running=2))
    first = ana.submit()
    ana.submit()
    refused(ana.ask("POST", "/v1/jobs", json=body()), "too-many-jobs")
    refused(ana.ask("POST", "/v1/studies", json=study_body()), "too-many-jobs")
    dry = ana.ask("POST", "/v1/jobs?dry_run=true", json=body())
    assert dry.status_code == 200
    holder(quiet, "ben").submit()
    assert ana.ask("POST", f"/v1/jobs/{first}/pause").status_code == 202
    ana.submit()
    refused(ana.ask("POST", f"/v1/jobs/{first}/resume"), "too-many-jobs")


def test_storage_beyond_the_keys_limit_is_refused_by_what_a_run_may_need(quiet: Quiet) -> None:
    open_to_all = holder(quiet, "root", Scope.ADMIN)
    plan = open_to_all.ask("POST", "/v1/jobs?dry_run=true", json=body()).json()
    limit = KeyLimits(storage_bytes=2 * plan["storage_bytes"] - 1)
    ana = holder(quiet, "ana", limits=limit)
    job = ana.submit()
    refused(ana.ask("POST", "/v1/jobs", json=body()), "storage-limit")
    assert ana.ask("POST", f"/v1/jobs/{job}/pause").status_code == 202
    assert ana.ask("POST", f"/v1/jobs/{job}/cancel").status_code == 202
    assert ana.ask("DELETE", f"/v1/jobs/{job}").status_code == 204
    ana.submit()
    small = holder(quiet, "small", limits=KeyLimits(storage_bytes=1))
    file = next(iter(GOOD.values()))
    refused(small.ask("PUT", "/v1/datasets/faces", content=file), "storage-limit")
    assert quiet.jobs.upload("faces") is None


def test_requests_beyond_the_keys_pace_are_refused_and_told_when_to_come_again(
    quiet: Quiet,
) -> None:
    clock = Clock()
    quiet.app.state.services.access.rates = Rates(clock)
    ana = holder(quiet, "ana", limits=KeyLimits(requests_per_s=0.4))
    ben = holder(quiet, "ben")
    for _ in range(int(0.4 * BURST_S)):
        assert ana.ask("GET", "/v1/jobs").status_code == 200
    answer = ana.ask("GET", "/v1/jobs")
    refused(answer, "too-many-requests")
    assert answer.headers["retry-after"] == "3"  # 1 / 0.4 s
    assert ben.ask("GET", "/v1/jobs").status_code == 200
    clock.now_s += 2.4
    refused(ana.ask("GET", "/v1/jobs"), "too-many-requests")
    clock.now_s += 0.1
    assert ana.ask("GET", "/v1/jobs").status_code == 200
    refused(ana.ask("GET", "/v1/jobs"), "too-many-requests")


def test_a_key_that_was_silent_may_ask_much_at_once_but_no_more_than_its_burst() -> None:
    clock = Clock()
    rates = Rates(clock)
    clock.now_s = 1e6
    allowed = sum(rates.take("key", 2.0) == 0 for _ in range(100))
    assert allowed == 2.0 * BURST_S
    clock.now_s += 0.5
    assert rates.take("key", 2.0) == 0
    assert rates.take("key", 2.0) == pytest.approx(0.5)


def test_of_all_places_a_key_has_half_and_lanes_do_not_take_from_one_another() -> None:
    crowd = Crowd(max_requests=4, max_followers=2)
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(crowd.place("ana", Lane.REQUEST))
        with pytest.raises(Crowded, match=r"2 requests .* for this key") as own:
            stack.enter_context(crowd.place("ana", Lane.REQUEST))
        assert own.value.is_own
        for _ in range(2):
            stack.enter_context(crowd.place(None, Lane.REQUEST))
        with pytest.raises(Crowded, match="4 requests") as every:
            stack.enter_context(crowd.place("ben", Lane.REQUEST))
        assert not every.value.is_own
        stack.enter_context(crowd.place("ana", Lane.STREAM))
        stack.enter_context(crowd.place(None, Lane.PROBE))
    with crowd.place("ben", Lane.REQUEST):
        pass


def crowd_of(quiet: Quiet) -> Crowd:
    """The application's own."""
    layer = quiet.app.middleware_stack
    while not isinstance(layer, Guard):
        layer = getattr(layer, "app", None) or layer._app  # type: ignore[union-attr]
    return layer._crowd


def test_more_requests_than_there_are_places_for_are_told_to_come_again(quiet: Quiet) -> None:
    quiet.http.get("/livez")
    crowd = crowd_of(quiet)
    with contextlib.ExitStack() as stack:
        for _ in range(quiet.settings.max_requests):
            stack.enter_context(crowd.place(None, Lane.REQUEST))
        answer = quiet.http.get("/v1/jobs")
        assert problem(answer, 503, "overloaded")["retryable"]
        assert "retry-after" in answer.headers
        assert quiet.http.get("/livez").status_code == 200
        for _ in range(PROBES_AT_ONCE):
            stack.enter_context(crowd.place(None, Lane.PROBE))
        problem(quiet.http.get("/readyz"), 503, "overloaded")
    assert quiet.http.get("/v1/jobs").status_code == 200


def test_one_key_does_not_take_all_places(quiet: Quiet) -> None:
    ana, ben = holder(quiet, "ana"), holder(quiet, "ben")
    quiet.http.get("/livez")
    crowd = crowd_of(quiet)
    with contextlib.ExitStack() as stack:
        for _ in range(quiet.settings.max_requests // 2):
            stack.enter_context(crowd.place(ana.key_id, Lane.REQUEST))
        refused(ana.ask("GET", "/v1/jobs"), "too-many-requests")
        assert ben.ask("GET", "/v1/jobs").status_code == 200
