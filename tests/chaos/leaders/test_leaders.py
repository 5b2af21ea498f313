"""Two strikes of ``python -m tests.chaos.leaders``, and each kind of fault that its judge must
see."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest

from tests.chaos.leaders import audit, report
from tests.chaos.leaders.audit import Lease, Write
from tests.chaos.leaders.customers import Promises
from tests.chaos.leaders.installation import installed
from tests.chaos.leaders.judge import (
    Verdict,
    judge_events,
    judge_history,
    judge_promises,
    judge_sequence,
)
from tests.chaos.leaders.series import Found, run
from tests.chaos.leaders.strikes import Strike
from workers.events import NoticeRecord, ProgressRecord, Record

NOON = datetime(1970, 1, 1, 12, tzinfo=UTC)
NOON_US = 12 * 3600 * 1_000_000


class Stored(NamedTuple):
    at_us: int
    kind: str
    data: str


def test_a_killed_and_a_cut_off_leader_lose_nothing_and_write_nothing_late() -> None:
    with installed() as site:
        found = run(site, [("leader", "kill"), ("leader", "cut")], seed=3)
    assert found.verdict.sentences() == []
    assert found.verdict.counts["promised"] >= 1
    assert found.verdict.counts["leases"] >= 2


@pytest.mark.parametrize(
    ("states", "keys", "fault"),
    [
        ({"a": "succeeded"}, {"1": "a"}, None),
        ({"a": "cancelled"}, {"1": "a"}, "lost"),
        ({"a": "running"}, {"1": "a"}, "lost"),
        ({}, {}, "lost"),
        ({"a": "succeeded"}, {"1": "b"}, "lost"),
        ({"a": "succeeded", "b": "succeeded"}, {"1": "a"}, "ended_twice"),
    ],
)
def test_the_judge_sees_a_broken_promise(
    states: dict[str, str], keys: dict[str, str], fault: str | None
) -> None:
    verdict = Verdict()
    judge_promises(Promises(jobs={"1": "a"}), states, keys, verdict)
    assert [name for name in vars(verdict) if vars(verdict)[name]] == ([fault] if fault else [])


def test_a_cancel_that_was_promised_may_come_too_late() -> None:
    verdict = Verdict()
    promises = Promises(jobs={"1": "a", "2": "b"}, cancelled={"a", "b"})
    judge_promises(promises, {"a": "succeeded", "b": "cancelled"}, {"1": "a", "2": "b"}, verdict)
    assert verdict.sentences() == []


@pytest.mark.parametrize(
    ("numbers", "is_whole"), [([1, 2, 3], True), ([1, 3], False), ([1, 2, 2, 3], False)]
)
def test_the_judge_sees_gaps_and_duplicates(numbers: list[int], *, is_whole: bool) -> None:
    verdict = Verdict()
    judge_sequence("a", numbers, 3, verdict)
    assert (verdict.sentences() == []) is is_whole


@pytest.mark.parametrize(
    ("states", "is_true"),
    [
        (["queued", "running", "running", "succeeded"], True),
        (["queued", "running", "queued", "running", "succeeded"], True),
        (["queued", "running", "succeeded", "running", "succeeded"], False),
        (["queued", "running", "succeeded", "cancelled"], False),
        (["queued", "running"], False),
        (["running", "succeeded"], False),
    ],
)
def test_the_judge_sees_a_second_end(states: list[str], *, is_true: bool) -> None:
    verdict = Verdict()
    judge_history("a", states, verdict)
    assert (verdict.sentences() == []) is is_true


def test_the_judge_sees_what_was_taken_in_twice_or_not() -> None:
    records: list[Record] = [
        NoticeRecord(at=NOON, code="one", message="first"),
        ProgressRecord(at=NOON, step=1, epoch=0.1),
        NoticeRecord(at=NOON, code="two", message="second"),
    ]
    events: list[Any] = [
        Stored(NOON_US, "state", "{}"),
        Stored(NOON_US, "notice", '{"code":"one","message":"first"}'),
        Stored(NOON_US, "notice", '{"code":"two","message":"second"}'),
    ]
    for stored, is_right in ((events, True), (events[:2], False), ([*events, events[2]], False)):
        verdict = Verdict()
        judge_events("a/1", stored, records, verdict)
        assert (verdict.sentences() == []) is is_right


def test_the_judge_sees_who_writes_without_the_last_lease() -> None:
    taken = [Lease(1, "one", 10, "one-1"), Lease(2, "two", 20, "two-1")]
    right = [Write(11, 1, 2.0, "one-1", "attempts"), Write(21, 2, 2.0, "two-1", "attempts")]
    late = Write(22, 2, 1.0, "one-1", "attempts")
    another_life = Write(23, 2, 1.0, "two-2", "attempts")
    assert audit.foreign(taken, right) == []
    assert len(audit.foreign(taken, [*right, late, another_life])) == 2


def test_the_table_and_the_summary_tell_the_times_and_the_faults() -> None:
    strikes = (
        Strike("leader", "kill", 0.0, 3.0, 4.0),
        Strike("leader", "kill", 0.0, 5.0, 6.0),
        Strike("database", "stop", 1.0, None, 1.5),
    )
    row = report.row(Found(strikes, Verdict(lost=["a"], counts=Counter(jobs=7))))
    assert report.table([row]).splitlines()[2:] == [
        "| leader | kill | 2 | 2 | 3.0 | 5.0 | 5.0 | 4.0 | 6.0 | 6.0 |",
        "| database | stop | 1 | 0 | – | – | – | 1.5 | 1.5 | 1.5 |",
    ]
    assert report.summary([row]) == "3 strikes (2 kills) in 1 series; 1 faults; jobs 7"
