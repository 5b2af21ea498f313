"""Promotion: the last checkpoint of a trial goes on as a job of its own, which is no trial."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Literal

from pydantic import ValidationError

from service.access.caller import ANYBODY, Caller
from service.errors import FieldError, Invalid, InvalidSpec, NoAnswerYet
from service.forking import Forks
from service.jobs import Job, JobRequest, JobState
from service.jobstore import Idempotency, JobStore
from service.studies import best as ranked
from service.studies.answers import Answers
from service.studies.configuring import spec_of
from service.studies.ledger import Trial
from service.studies.population import is_population
from service.studies.standings import Outcome, Standings
from service.training import Training
from service.validation import plain_message
from workers.kinds import AnySpec, epochs
from workers.spec import JOB_SPEC, Start

LABEL = "study"  # by which promoted jobs are found; its value is the study's id


@dataclass(frozen=True, slots=True)
class Promotion:
    """What is promoted: a configuration, the confirmed best where it is None.

    ``epochs`` are passes over the data in all, the trial's own where it is None: too few to go on
    with the train state of a trial that was trained for all of them. ``start`` is what
    is taken over of the trial's last checkpoint, ``scratch`` nothing; where it is None, that of a
    population, whose answer is a schedule from the first epoch on, and else the train state.
    """

    configuration: int | None
    epochs: int | None
    name: str | None
    start: Start | Literal["scratch"] | None = None


class Promotions:
    """Makes jobs of trials."""

    def __init__(self, jobs: JobStore, training: Training, forks: Forks, answers: Answers) -> None:
        self._jobs = jobs
        self._training = training
        self._forks = forks
        self._answers = answers

    def promote(
        self,
        study_id: str,
        wanted: Promotion,
        idempotency_key: str | None,
        caller: Caller = ANYBODY,
    ) -> tuple[Job, bool]:
        """Fork a trial's last checkpoint, or train its spec anew; the job and whether it is new.

        Of the configuration's trials that with the best objective among those that ran to their
        end, or else of those that were stopped early. Raises StudyNotFound, NoAnswerYet where
        nothing is confirmed or the configuration has no such trial, and what a fork raises.
        """
        idempotency = None
        if idempotency_key is not None:
            digest = _digest(study_id, wanted)
            idempotency = Idempotency(key=caller.named(idempotency_key), body_digest=digest)
            if (stored := self._jobs.replayed(idempotency)) is not None:
                return stored, False
        standings = self._answers.standings(study_id)
        asked = standings.study.request
        number = _configuration(standings, wanted.configuration)
        start = wanted.start or ("scratch" if is_population(asked) else "train_state")
        parent = None if start == "scratch" else self._trial(standings, number).job_id
        if parent is None:
            spec = spec_of(asked.spec, standings.values[number], asked.seeds[0])
        else:
            spec = self._jobs.get(parent).spec
        request = JobRequest(
            name=wanted.name or f"{asked.name}: {number}"[:200],
            labels={LABEL: study_id},
            spec=_spec(spec, wanted.epochs),
        )
        if start == "scratch" or parent is None:
            return self._training.begin(request, idempotency, caller)
        try:
            return self._forks.begin(parent, "latest", start, request, idempotency, caller)
        except InvalidSpec as error:
            if not any(one.pointer == "/spec/trainer/epochs" for one in error.errors):
                raise
            found = tuple(_of_the_body(one, spec, wanted.epochs) for one in error.errors)
            raise InvalidSpec(f"{found[0].pointer} {found[0].message}.", found) from error

    def _trial(self, standings: Standings, configuration: int) -> Trial:
        for trial in _succeeded(standings, configuration):
            if self._jobs.checkpoints(trial.job_id):
                return trial
        raise NoAnswerYet(
            f"no trial of configuration {configuration} that has succeeded has a checkpoint"
        )


def _configuration(standings: Standings, asked: int | None) -> int:
    if asked is not None:
        if asked not in standings.values:
            problem = f"the study has no configuration {asked}; GET its trials"
            raise Invalid(problem, (FieldError("/configuration", problem),))
        return asked
    found = ranked.best(standings)
    if found.ranking is not None:
        return found.ranking.best
    candidate = "" if found.configuration is None else f", such as {found.configuration}"
    raise NoAnswerYet(f"nothing is confirmed on fresh seeds yet; name a configuration{candidate}")


def _succeeded(standings: Standings, configuration: int) -> list[Trial]:
    """A configuration's trials that can go on: whole ones by their value, then stopped ones."""
    objective = standings.study.request.objective
    sign = -1.0 if objective.mode == "max" else 1.0
    mine = [
        one
        for one in standings.outcomes
        if one.trial.configuration == configuration and one.trial.state is JobState.SUCCEEDED
    ]

    def place(one: Outcome) -> tuple[bool, bool, float]:
        value = sign * one.value(objective.metric)
        return not one.is_whole, math.isnan(value), value

    return [one.trial for one in sorted(mine, key=place)]


def _spec(spec: AnySpec, epochs: int | None) -> AnySpec:
    if epochs is None:
        return spec
    document = spec.model_dump(mode="json")
    document["trainer"]["epochs"] = epochs
    try:
        return JOB_SPEC.validate_python(document)
    except ValidationError as error:
        problem = plain_message(error.errors(include_url=False, include_context=False)[0])
        if not hasattr(spec.trainer, "epochs"):
            problem = f"has no meaning for the trainer {spec.trainer.kind}; leave it out"
        raise InvalidSpec(f"/epochs {problem}.", (FieldError("/epochs", problem),)) from error


def _of_the_body(error: FieldError, spec: AnySpec, asked: int | None) -> FieldError:
    """What is wrong with a promotion's job as what is wrong with what was asked."""
    if error.pointer != "/spec/trainer/epochs":
        return error
    if asked is not None:
        return replace(error, pointer="/epochs")
    own = f"is left out, and so the trial's own {epochs(spec)}"
    return FieldError("/epochs", f"{own}: it {error.message}")


def _digest(study_id: str, wanted: Promotion) -> str:
    content = json.dumps(["promote", study_id, asdict(wanted)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
