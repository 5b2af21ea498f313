import threading

import pytest

from service import leadership
from service.feed import Feed
from service.jobstore import JobStore
from service.leadership import Leadership
from service.relay import Relay


class Defect:
    """Fails in a way that nobody has thought of, and counts how often it was asked for."""

    def __init__(self) -> None:
        self.asked = 0
        self.was_asked_again = threading.Event()

    def __call__(self, *_: object) -> bool:
        self.asked += 1
        if self.asked > 1:
            self.was_asked_again.set()
        raise ZeroDivisionError


def test_a_defect_does_not_end_the_thread_that_keeps_the_lease(
    jobs: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leadership, "LOOK_INTERVAL_S", 0.001)
    defect = Defect()
    leading = Leadership(jobs, "here", lease_s=60)
    leading.start(lambda: None)
    with monkeypatch.context() as defective:
        defective.setattr(jobs, "renew_lease", defect)
        assert defect.was_asked_again.wait(30)
    leading.stop()
    assert jobs.lease().left_s <= 0  # given back


def test_a_defect_does_not_end_the_thread_that_passes_events_on(
    jobs: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.relay.LOOK_INTERVAL_S", 0.001)
    feed, defect = Feed(), Defect()
    monkeypatch.setattr(feed, "followed", defect)
    relay = Relay(jobs, feed)
    relay.start()
    assert defect.was_asked_again.wait(30)
    relay.stop()
