"""Any order of verbs, starts and ends, also by those who saw the job as it was some time ago."""

from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.errors import StateConflict
from service.jobs import FINAL_STATES, TRANSITIONS, Job, JobState, Reason
from service.jobstore import JobStore
from service.verdicts import judge
from tests.contract.jobstore.making import NOON, attempt, job
from workers.events import Outcome, OutcomeReason

OUTCOMES: list[OutcomeReason] = [
    *("completed", "cancelled", "paused", "interrupted", "worker_lost", "diverged"),
    *("out_of_memory", "store_unreachable", "service_stopped", "cluster_lost"),
]


class Life(RuleBasedStateMachine):
    """One job; ``seen`` are all that it has been, oldest first."""

    store: JobStore

    @initialize()
    def submit(self) -> None:
        self.store = JobStore.open("sqlite://")
        made, _ = self.store.add(job())
        self.seen = [made]

    @property
    def now(self) -> Job:
        return self.seen[-1]

    def look(self) -> None:
        self.seen.append(self.store.get(self.now.id))

    def teardown(self) -> None:
        self.store.close()

    @rule(verb=st.sampled_from(["request_cancel", "request_pause", "resume", "retry"]))
    def wish(self, verb: str) -> None:
        before = self.now
        try:
            said = getattr(self.store, verb)(before.id)
        except StateConflict:
            self.look()
            assert self.now == before
            return
        self.look()
        assert self.now == said
        # Asking twice is safe.
        assert getattr(self.store, verb)(before.id) == said
        if before.cancel_requested and before.state in (JobState.QUEUED, JobState.RUNNING):
            assert self.now.cancel_requested

    @rule(age=st.integers(0, 4))
    def start(self, age: int) -> None:
        job = self.seen[max(-len(self.seen), -1 - age)]
        rows = self.store.attempts(job.id)
        last = rows[-1].number if rows else 0
        number = job.attempt if job.attempt > last else job.attempt + 1
        is_possible = self.now.state is job.state is JobState.QUEUED and (
            self.now.attempt == job.attempt
        )
        try:
            self.store.start_attempt(job, attempt(job, number), Reason.STARTING, "starting")
        except StateConflict:
            assert not is_possible
        else:
            assert is_possible
        self.look()

    @rule(age=st.integers(0, 4), reason=st.sampled_from(OUTCOMES))
    def end(self, age: int, reason: OutcomeReason) -> None:
        """An outcome arrives, and is judged on the job as somebody saw it."""
        job = self.seen[max(-len(self.seen), -1 - age)]
        if job.state is not JobState.RUNNING:
            return
        outcome = Outcome(reason=reason, message="It ended.", at=NOON)
        verdict = judge(job, outcome, self.store.attempts(job.id))
        same = ("state", "attempt", "cancel_requested", "pause_requested")
        is_possible = all(getattr(job, name) == getattr(self.now, name) for name in same)
        try:
            self.store.settle(
                job, verdict.to, verdict.reason, verdict.message, Reason(reason), "It ended."
            )
        except StateConflict:
            assert not is_possible
        else:
            assert is_possible
            if job.pause_requested:
                assert verdict.to in (JobState.PAUSED, *FINAL_STATES)
            if job.cancel_requested:
                assert verdict.to in FINAL_STATES
        self.look()

    @precondition(lambda self: self.store.queued_with_wishes())
    @rule()
    def grant(self) -> None:
        for waiting in self.store.queued_with_wishes():
            to = JobState.CANCELLED if waiting.cancel_requested else JobState.PAUSED
            self.store.settle(waiting, to, Reason(to.value), "Granted.")
        self.look()

    @invariant()
    def one_attempt_is_open_while_the_job_runs_and_none_otherwise(self) -> None:
        rows = self.store.attempts(self.now.id)
        still = [row.number for row in rows if row.ended_at is None]
        assert still == ([self.now.attempt] if self.now.state is JobState.RUNNING else [])
        numbers = [row.number for row in rows]
        assert numbers == list(range(1, len(rows) + 1))

    @invariant()
    def versions_and_attempts_only_rise_and_success_is_final(self) -> None:
        for before, after in pairwise(self.seen):
            assert after.version >= before.version
            assert after.attempt >= before.attempt
            if before.state is JobState.SUCCEEDED:
                assert after == before
            if after != before:
                assert after.version > before.version

    @invariant()
    def the_events_tell_a_way_through_the_table(self) -> None:
        told = [JobState(event.data["state"]) for event in self.store.events(self.now.id)]
        for before, after in pairwise(told):
            assert after in TRANSITIONS[before], f"{before} -> {after}"
        assert told[-1] is self.now.state
        assert (self.now.ended_at is not None) == (self.now.state in FINAL_STATES)


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestLife = Life.TestCase
