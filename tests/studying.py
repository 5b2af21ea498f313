"""Studies to test with, stored as POST /v1/studies stores them."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from service.jobs import FINAL_STATES, JobState
from service.studies.checking import require
from service.studies.ledger import Phase, Study, StudyReason, Trial
from service.studies.request import StudyRequest
from tests.factories import tiny_spec
from tests.harness import Service
from tests.looking import looks

RATE = "/trainer/optimizer/learning_rate"
METRIC = "held_out_loss_nats"


def study_spec(epochs: int = 3, every: int = 1, **fields: Any) -> dict[str, Any]:
    """A training of a fraction of a second that is evaluated ``every`` so many epochs."""
    cadence = {"grid_every_epochs": 100_000, "evaluate_every_epochs": every}
    spec = tiny_spec(epochs=epochs, **cadence).model_dump()
    return {**spec, "checkpoint_every_epochs": 100_000, **fields}


def new_study(**fields: Any) -> Study:
    """A queued study of four random configurations, two at one time."""
    body = {
        "name": "which rate",
        "spec": study_spec(),
        "space": {RATE: {"loguniform": [1e-4, 1e-2]}},
        "objective": {"metric": METRIC, "mode": "min"},
        "budget": {"trials": 4},
        "concurrency": 2,
        "confirmation": {"top": 2, "seeds": [1, 2]},
        **fields,
    }
    now = datetime.now(UTC)
    return Study(
        id=f"study-{secrets.token_hex(8)}",
        request=require(StudyRequest.model_validate(body)),
        is_overridden=False,
        state=JobState.QUEUED,
        reason=StudyReason.SUBMITTED,
        message="",
        version=1,
        created_at=now,
        updated_at=now,
    )


@dataclass
class Studied:
    """A service whose studies a test stores, and looks at; ``is_watched`` where its watcher runs by
    itself."""

    service: Service
    is_watched: bool = False

    def add(self, **fields: Any) -> Study:
        study = self.service.jobs.ledger.add(new_study(**fields))
        self.service.watcher.wake()
        return study

    def now(self, study: Study) -> Study:
        return self.service.jobs.ledger.get(study.id)

    def wait(self, study: Study, is_there: Callable[[Study], bool]) -> Study:
        """Rounds until the study is there."""
        now = study
        for _ in looks(240):
            if is_there(now := self.now(study)):
                return now
            if not self.is_watched:
                self.service.watcher.round()
        raise AssertionError(f"the study stays {now.state}: {now.message}")

    def wait_for_end(self, study: Study) -> Study:
        return self.wait(study, lambda now: now.state in FINAL_STATES)

    def trials(self, study: Study, phase: Phase = Phase.SEARCH) -> list[Trial]:
        return [t for t in self.service.jobs.ledger.trials(study.id) if t.phase is phase]

    def finished(self, study: Study) -> int:
        """How many trials have ended."""
        return sum(t.state in FINAL_STATES for t in self.service.jobs.ledger.trials(study.id))

    def epochs(self, study: Study) -> dict[int, list[int]]:
        """The epochs of the stored results by trial."""
        found: dict[int, list[int]] = {}
        for result in self.service.jobs.ledger.results(study.id):
            found.setdefault(result.trial, []).append(result.epoch)
        return found

    def attempts(self, study: Study) -> dict[int, int]:
        """How many attempts each trial had."""
        trials = self.service.jobs.ledger.trials(study.id)
        return {t.number: len(self.service.jobs.attempts(t.job_id)) for t in trials}

    def of_fresh_seeds(self, study: Study) -> list[tuple[int, int]]:
        """(configuration, seed) of what was confirmed."""
        fresh = self.trials(study, Phase.CONFIRMATION)
        return sorted((trial.configuration, trial.seed) for trial in fresh)
