"""When a queued job starts: the queue's rule played through with what was measured."""

from datetime import UTC, datetime

import pytest

from service.cluster.inline import InlineCluster
from service.queueing import PLAYED, Holder, Queueing, Waiter, play
from tests.factories import request, tiny_spec
from tests.harness import Service
from tests.unit.service.test_explaining_working import running
from workers.spec import Resources

ONE, TWO = Resources(), Resources(cpus_per_worker=2)
CEILING = InlineCluster(cpus=2).capacity()
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def holds(left_s: float | None, resources: Resources = ONE, *, is_ending: bool = False) -> Holder:
    return Holder("job-h", resources, NOW, left_s, is_ending, has_process=True)


def test_a_free_place_is_taken_at_once() -> None:
    asks = Waiter("me", ONE)
    assert play(CEILING, [holds(50)], [asks], asks).in_s == 0


def test_a_full_cluster_is_waited_for_until_the_first_end() -> None:
    asks = Waiter("me", ONE)
    assert play(CEILING, [holds(50), holds(20)], [asks], asks).in_s == 20


def test_a_large_job_ahead_is_not_overtaken() -> None:
    asks = Waiter("me", ONE)
    large = Waiter("large", TWO, runs_s=100)
    # One core is free, but the large one is first: it starts at 30 and ends at 130.
    assert play(CEILING, [holds(30)], [large, asks], asks).in_s == 130


def test_those_behind_start_first_while_a_job_waits_its_back_off() -> None:
    asks = Waiter("me", TWO, due_s=10)
    behind = Waiter("behind", ONE, runs_s=60)
    assert play(CEILING, [], [asks, behind], asks).in_s == 60
    assert play(CEILING, [], [asks], asks).in_s == 10


def test_an_unknown_end_is_not_counted_on_and_named_where_all_hangs_on_it() -> None:
    asks = Waiter("me", ONE)
    assert play(CEILING, [holds(None), holds(20)], [asks], asks).in_s == 20
    start = play(CEILING, [holds(None, TWO)], [asks], asks)
    assert start.in_s is None
    assert "nobody can tell how long job-h will run" in start.why
    ending = play(CEILING, [holds(None, TWO, is_ending=True)], [asks], asks)
    assert "job-h is about to end" in ending.why


def test_a_job_ahead_that_never_fits_is_named() -> None:
    asks = Waiter("me", ONE)
    never = Waiter("never", Resources(cpus_per_worker=3))
    start = play(CEILING, [], [never, asks], asks)
    assert start.in_s is None
    assert "never is before it" in start.why


def test_the_start_rests_on_measured_paces_and_is_unknown_without_them(service: Service) -> None:
    # 200 steps in 100 s, and 199 are left; then the one between, of which nothing is known.
    running(service, 1000)
    between = service.submit(request(tiny_spec(batch_size=10)))
    job = service.submit(request())
    queueing = Queueing(service.jobs, service.cluster)
    standing = queueing.standing(between)
    assert standing.starts_at is not None
    assert (standing.starts_at - datetime.now(UTC)).total_seconds() == pytest.approx(99.5, abs=5)
    assert "pace of 1 running job(s)" in standing.basis
    unknown = queueing.standing(job)
    assert (unknown.ahead, unknown.starts_at) == (1, None)
    assert between.id in unknown.basis


def test_a_measured_like_of_those_ahead_lets_the_start_be_told(service: Service) -> None:
    running(service, 1000)
    # Like the running one: 400 steps at 2 steps/s after a start of 20 s.
    service.submit(request(tiny_spec(epochs=100)))
    job = service.submit(request())
    standing = Queueing(service.jobs, service.cluster).standing(job)
    assert standing.starts_at is not None
    seconds = (standing.starts_at - datetime.now(UTC)).total_seconds()
    assert seconds == pytest.approx(99.5 + 20 + 200, abs=8)
    assert "the like of 1 waiting job(s)" in standing.basis


def test_a_dry_run_stands_behind_its_equals_and_before_lesser_ones(service: Service) -> None:
    for priority in (0, 0, 5, -5):
        service.submit(request(priority=priority))
    for priority, ahead in ((0, 3), (5, 1), (6, 0), (-6, 4)):
        plan = service.training.dry_run(request(priority=priority))
        assert plan.standing.ahead == ahead
    assert plan.waits_for.startswith("4 queued job(s)")


def test_behind_very_many_the_place_is_told_and_no_time(service: Service) -> None:
    for _ in range(PLAYED + 1):
        service.submit(request())
    plan = service.training.dry_run(request())
    assert (plan.standing.ahead, plan.standing.starts_at) == (PLAYED + 1, None)
    assert f"More than {PLAYED}" in plan.standing.basis
