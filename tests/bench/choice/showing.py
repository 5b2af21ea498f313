"""The recorded grid as the service would show it: a study's curve, and its numbers beside it."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from service.jobs import JobState, Reason
from service.studies.curves import CurveAnswer, curves
from service.studies.ledger import Phase, Study, StudyReason, Trial, TrialResult
from service.studies.presets import KIND, SCALE
from service.studies.standings import Outcome, Standings
from tests.bench.choice.recording import KINDS, SCALES, Row
from tests.bench.choice.replaying import NOISES, request_of

_AT = datetime(2026, 1, 1, tzinfo=UTC)


def curve_of(data: str, rows: Sequence[Row], metric: str | None = None) -> CurveAnswer:
    """A metric, the study's objective without one, against the scale for each kind of noise."""
    runs = [row for row in rows if row.data == data and row.failed is None]
    found = _standings(data, runs)
    results = [
        TrialResult(number * len(run.rungs) + k, number, rung.epoch, rung.metrics, _AT)
        for number, run in enumerate(runs, start=1)
        for k, rung in enumerate(run.rungs)
    ]

    def results_at(epochs: Collection[int], trials: Collection[int]) -> list[TrialResult]:
        return [one for one in results if one.epoch in epochs and one.trial in trials]

    epochs = sorted({result.epoch for result in results})
    return curves(found, (SCALE, KIND), metric, results_at, epochs)


def _standings(data: str, runs: Sequence[Row]) -> Standings:
    space = {KIND: {"choice": list(KINDS)}, SCALE: {"loguniform": [min(SCALES), max(SCALES)]}}
    request = request_of(
        data,
        space=space,
        search={"kind": "random"},
        seeds=sorted({run.seed for run in runs}),
        budget={"trials": len(runs)},
    )
    study = Study(
        id="study-recorded",
        request=request,
        is_overridden=False,
        state=JobState.SUCCEEDED,
        reason=StudyReason.COMPLETED,
        message="recorded",
        version=1,
        created_at=_AT,
        updated_at=_AT,
        ended_at=_AT,
    )
    outcomes = tuple(
        Outcome(_trial(number, run), run.rungs[-1].epoch, run.rungs[-1].metrics, is_whole=True)
        for number, run in enumerate(runs, start=1)
    )
    return Standings(study, outcomes, (), {})


def _trial(number: int, run: Row) -> Trial:
    return Trial(
        study_id="study-recorded",
        number=number,
        configuration=NOISES.index((run.kind, run.scale)),
        values={KIND: run.kind, SCALE: run.scale},
        seed=run.seed,
        phase=Phase.SEARCH,
        job_id=f"job-{number:016x}",
        state=JobState.SUCCEEDED,
        reason=Reason.COMPLETED,
        message="recorded",
        created_at=_AT,
        last_event=0,
        ended_at=_AT,
    )
