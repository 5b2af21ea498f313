"""How long the client waits for a service that does not answer, by a clock of the test's own."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import httpx2
import pytest

from api import bodies
from api.client import ApiError, Unreachable
from api.client.connection import Connection, Event
from api.client.following import events_of
from api.client.patience import RETRY_S, Patience


@dataclass
class Clock:
    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def patience(self, limit_s: float, timeout_s: float | None = None) -> Patience:
        deadline = None if timeout_s is None else self.now + timeout_s
        return Patience(limit_s, None, deadline, lambda: self.now, self.sleep)


GONE = Unreachable("http://localhost", "refused")


def refusal(status: int, *, retryable: bool, retry_after_s: float | None = None) -> ApiError:
    problem = bodies.Problem(
        type="about:blank", title="no", status=status, detail="no", retryable=retryable
    )
    return ApiError(problem, retry_after_s)


def test_patience_runs_from_the_first_failure_since_the_service_was_heard() -> None:
    clock = Clock()
    patience = clock.patience(60)
    for _ in range(3):
        clock.now += 3600  # of silence on an open connection
        patience.bear(GONE)
        clock.now += 59
        patience.bear(GONE)
        patience.heard()
    patience.bear(GONE)
    clock.now += 60
    with pytest.raises(Unreachable):
        patience.bear(GONE)


def test_a_first_failure_is_followed_by_another_attempt_without_any_patience() -> None:
    patience = Clock().patience(0)
    patience.bear(GONE)
    with pytest.raises(Unreachable):
        patience.bear(GONE)


def test_each_time_of_silence_is_told_once() -> None:
    told: list[str] = []
    patience = Clock().patience(60)
    patience.told = lambda: told.append("waiting")
    for _ in range(2):
        patience.bear(GONE)
        patience.bear(GONE)
        patience.heard()
    assert told == ["waiting"] * 2


def test_a_refusal_that_stays_is_not_waited_for() -> None:
    clock = Clock()
    with pytest.raises(ApiError):
        clock.patience(60).bear(refusal(404, retryable=False))
    assert clock.slept == []


def test_what_the_service_asks_for_is_waited_within_patience_and_deadline() -> None:
    clock = Clock()
    busy = refusal(503, retryable=True, retry_after_s=20)
    clock.patience(60).bear(busy)
    clock.patience(5).bear(busy)
    clock.patience(60, timeout_s=3).bear(busy)
    clock.patience(60).bear(GONE)
    assert clock.slept == [20, 5, 3, RETRY_S]


def test_nothing_is_waited_for_behind_the_deadline() -> None:
    clock = Clock()
    patience = clock.patience(60, timeout_s=10)
    clock.now += 10
    with pytest.raises(Unreachable):
        patience.bear(GONE)
    assert clock.slept == []


@dataclass
class Breaking:
    """Streams that are open for so long without an event, and break."""

    clock: Clock
    open_s: float
    cause: Exception
    streams: int = 0

    def follow(self, *_: object) -> Iterator[Event]:
        self.streams += 1
        self.clock.now += self.open_s
        if self.streams > 1000:
            yield Event("end", {})
        raise Unreachable("http://localhost", self.cause) from self.cause


@pytest.mark.parametrize(
    ("open_s", "cause"),
    [(0.1, httpx2.RemoteProtocolError("cut")), (45.0, httpx2.ReadTimeout("silent"))],
    ids=["at once", "after silence"],
)
def test_streams_that_only_open_do_not_renew_patience(open_s: float, cause: Exception) -> None:
    clock = Clock()
    breaking = Breaking(clock, open_s, cause)
    with pytest.raises(Unreachable):
        list(events_of(cast(Connection, breaking), "job", clock.patience(60)))
    assert clock.now < 1000 + 60 + 2 * (open_s + RETRY_S)


def test_streams_that_live_and_break_are_taken_up_again_and_again() -> None:
    clock = Clock()
    breaking = Breaking(clock, 30.0, httpx2.RemoteProtocolError("cut"))
    (end,) = events_of(cast(Connection, breaking), "job", clock.patience(0))
    assert (end.kind, breaking.streams) == ("end", 1001)
