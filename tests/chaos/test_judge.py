"""The judge of the kill matrix sees each kind of fault, and its table adds up."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api.bodies import JobBody
from api.examples import EXAMPLES
from tests.chaos import report
from tests.chaos.cells import LONG_EVERY, MATRIX, SHORT_STOP_S, VICTIMS, Cell, must
from tests.chaos.judge import AttemptFacts, Faults, judge_attempts, judge_history, judge_must
from tests.chaos.strike import Result
from workers.events import Outcome, OutcomeReason

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KILL = Cell("own", "attempt", "kill", "training")
TOTAL = 100


def job(state: str = "succeeded", attempts: int = 2) -> JobBody:
    example = EXAMPLES["JobBody"]
    return JobBody.model_validate(
        {
            **example,
            "state": state,
            "progress": {**example["progress"], "total_steps": TOTAL},
            "attempts": example["attempts"] * attempts,
        }
    )


def lost_and_completed() -> list[AttemptFacts]:
    """An attempt that was lost at step 50 after a checkpoint at 40, and its good successor."""

    def ended(reason: OutcomeReason, at: datetime) -> Outcome:
        return Outcome(reason=reason, message="", at=at)

    lost = AttemptFacts(50, 0, [20, 40], NOW, NOW + timedelta(seconds=5))
    lost.outcome = ended("worker_lost", NOW + timedelta(seconds=6))
    last = AttemptFacts(TOTAL, 40, [60, TOTAL], NOW + timedelta(seconds=8))
    last.outcome = ended("completed", NOW + timedelta(seconds=20))
    return [lost, last]


def faults_of(facts: Sequence[AttemptFacts]) -> tuple[Faults, int]:
    faults = Faults()
    return faults, judge_attempts(job(), facts, faults)


def test_a_loss_that_cost_the_steps_since_the_last_checkpoint_is_no_fault() -> None:
    faults, recomputed = faults_of(lost_and_completed())
    assert not faults
    assert recomputed == 10


def test_an_attempt_that_speaks_after_its_successor_began_is_a_second_one() -> None:
    facts = lost_and_completed()
    facts[0].last_word_at = NOW + timedelta(seconds=8.5)
    assert faults_of(facts)[0].two_at_once


def test_going_on_from_an_older_checkpoint_is_too_much_work() -> None:
    facts = lost_and_completed()
    facts[1].resumed_from = 20
    assert faults_of(facts)[0].recomputed


def test_a_success_without_its_last_checkpoint_is_a_loss() -> None:
    facts = lost_and_completed()
    facts[1].published = [60]
    assert faults_of(facts)[0].lost


def test_a_success_whose_last_checkpoint_was_there_already_is_no_fault() -> None:
    facts = lost_and_completed()
    facts[0].published, facts[0].steps = [20, TOTAL], TOTAL
    facts[1].published, facts[1].resumed_from, facts[1].first_step_at = [], TOTAL, None
    assert not faults_of(facts)[0]
    facts[0].published = [20]
    assert faults_of(facts)[0].lost


def test_an_attempt_without_an_end_is_a_false_state() -> None:
    facts = lost_and_completed()
    facts[0].outcome = None
    assert faults_of(facts)[0].false_states


@pytest.mark.parametrize(
    "states",
    [
        ("running", "succeeded"),
        ("queued", "running", "succeeded", "running"),
        ("queued", "running", "failed"),
        ("queued", "running"),
    ],
)
def test_a_history_that_cannot_be_is_a_false_state(states: Sequence[str]) -> None:
    faults = Faults()
    judge_history(job(), [(state, "") for state in states], faults)
    assert faults.false_states


def test_a_history_over_a_lost_attempt_is_no_fault() -> None:
    faults = Faults()
    states = ("queued", "running", "queued", "running", "succeeded")
    judge_history(job(), [(state, "") for state in states], faults)
    assert not faults


def test_more_attempts_than_a_strike_may_cost_are_a_fault() -> None:
    may, may_not = must(KILL, 0), must(Cell("own", "attempt", "stop", "training"), SHORT_STOP_S)
    for expected, attempts, is_fault in (
        (may, 2, 0),
        (may, 3, 1),
        (may_not, 1, 0),
        (may_not, 2, 1),
    ):
        faults = Faults()
        judge_must(job(attempts=attempts), expected, faults)
        assert len(faults.needless) == is_fault
    faults = Faults()
    judge_must(job("cancelled", 1), may, faults)
    assert faults.false_states


def test_every_stop_is_a_long_one_with_some_seed() -> None:
    for cell in MATRIX:
        lengths = {cell.stop_s(seed) for seed in range(LONG_EVERY)}
        assert lengths == {0.0} if cell.action == "kill" else max(lengths) > SHORT_STOP_S in lengths


def test_results_are_read_as_they_were_written_and_later_ones_count(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    faulty = Result(KILL, 0, Faults(orphans=["4711"]), recovery_s=9.0)
    mended = Result(KILL, 0, Faults(), recovery_s=5.0, recomputed_steps=7)
    missed = Result(KILL, 1, Faults(), missed=True)
    for result in (faulty, missed, mended):
        report.write(result, path)
    assert report.read([path]) == [mended, missed]
    assert (
        "| own | attempt | kill | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 7 | 5.0, most 5.0 |"
        in report.table([mended, missed])
    )
    assert report.summary([faulty, missed]).startswith("1 hits in 1 cells (1 kills")
    assert "orphans 1" in report.summary([faulty])


def test_every_victim_of_a_setting_has_a_row() -> None:
    results = [Result(cell, 0, Faults()) for cell in MATRIX]
    rows = report.table(results).splitlines()[2:]
    assert len(rows) == len({(cell.setting, cell.victim, cell.action) for cell in MATRIX})
    assert {row.split(" | ")[0].removeprefix("| ") for row in rows} == set(VICTIMS)
