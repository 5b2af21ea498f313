"""A study's scheduler as one of Ray Tune, and a ledger's results told to it again.

Time is the key ``epoch`` of a result. A scheduler is never saved: a new one is told, through its
own public methods, of every stored result in the order in which the first one was. What it decided
then it decides again, as its decisions are functions of what it was told.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, assert_never

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)

from service.studies.ledger import TrialResult
from service.studies.request import (
    Asha,
    HyperBand,
    MedianStopping,
    NoScheduler,
    Pbt,
    StudyRequest,
)
from service.studies.space import LogUniform, Uniform

EPOCH = "epoch"


def scheduler(request: StudyRequest, most_epochs: int) -> TrialScheduler:
    """The scheduler of a resolved request, whose longest trial has ``most_epochs``.

    None stops a trial at its last epoch, which ends by itself.
    """
    common: dict[str, Any] = {
        "time_attr": EPOCH,
        "metric": request.objective.metric,
        "mode": request.objective.mode,
    }
    wanted = request.scheduler
    match wanted:
        case NoScheduler():
            return FIFOScheduler()
        case Asha():
            return ASHAScheduler(
                **common,
                max_t=most_epochs,
                grace_period=wanted.grace_epochs,
                reduction_factor=wanted.reduction_factor,
                stop_last_trials=False,
            )
        case HyperBand():
            return HyperBandScheduler(
                **common,
                max_t=most_epochs,
                reduction_factor=wanted.reduction_factor,
                stop_last_trials=False,
            )
        case MedianStopping():
            return MedianStoppingRule(
                **common,
                grace_period=wanted.grace_epochs,
                min_samples_required=wanted.min_trials,
            )
        case Pbt():
            return _population_based(request, wanted, common)
        case _:
            assert_never(wanted)


def _population_based(
    request: StudyRequest, wanted: Pbt, common: Mapping[str, Any]
) -> PopulationBasedTraining:
    """Synchronous, or an exchange is between whoever happens to be there.

    The scale is drawn again, or moved by a fifth and kept within its bounds.
    """
    ((_, dimension),) = request.space.items()
    match dimension:
        case Uniform(uniform=(low, high)):
            domain = tune.uniform(low, high)
        case LogUniform(loguniform=(low, high)):
            domain = tune.loguniform(low, high)
        case _:
            raise TypeError("pbt moves a range; other dimensions are refused before")

    def within(config: dict[str, Any]) -> dict[str, Any]:
        return {**config, "p0": min(max(config["p0"], low), high)}

    return PopulationBasedTraining(
        **common,
        perturbation_interval=wanted.interval_epochs,
        hyperparam_mutations={"p0": domain},
        quantile_fraction=wanted.quantile,
        custom_explore_fn=within,
        synch=True,
        log_config=False,  # the ledger has it
    )


class _Past:
    """The controller of a run that is over, as far as schedulers ask: it does what they say."""

    def __init__(self, scheduler: TrialScheduler, trials: Sequence[Trial]) -> None:
        self._scheduler = scheduler
        self._trials = trials

    def get_live_trials(self) -> list[Trial]:
        return [trial for trial in self._trials if not trial.is_finished()]

    def stop_trial(self, trial: Trial) -> None:
        trial.set_status(Trial.TERMINATED)
        self._scheduler.on_trial_remove(self, trial)


def replay(
    scheduler: TrialScheduler,
    trials: Mapping[int, Trial],
    results: Sequence[TrialResult],
    ended: Sequence[int],
) -> Iterator[tuple[int, str]]:
    """Tell a new scheduler of stored results; (seq, what it decides) for each.

    ``trials`` are Tune's, by their number in the ledger: those that go on, and stand-ins
    (``stand_in``) for those that have ``ended``, which is told after a trial's last result.
    """
    past, over = _Past(scheduler, list(trials.values())), frozenset(ended)
    last = {result.trial: result.seq for result in results}
    for number in sorted(trials):
        scheduler.on_trial_add(past, trials[number])
    for result in results:
        trial = trials[result.trial]
        told = {EPOCH: result.epoch, **result.metrics}
        trial.set_status(Trial.RUNNING)
        decision = scheduler.on_trial_result(past, trial, told)
        yield result.seq, decision
        is_over = result.trial in over and last[result.trial] == result.seq
        if decision == TrialScheduler.PAUSE:
            # One that has ended in its pause was stopped by what another one reported later.
            trial.set_status(Trial.PAUSED)
        elif is_over and not trial.is_finished():
            scheduler.on_trial_complete(past, trial, told)
            trial.set_status(Trial.TERMINATED)
    for number in ended:
        if not trials[number].is_finished():  # cancelled, or failed, without a last result
            past.stop_trial(trials[number])


def stand_in(name: str, values: Mapping[str, Any]) -> Trial:
    """A trial that has ended, for a scheduler's memory."""
    return Trial(name, config=dict(values), trial_id=name, stub=True)
