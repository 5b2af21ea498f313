"""Whether the order of configurations at earlier epochs is another one than at the end."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.studies.ledger import Phase, TrialResult
from service.studies.objective import most_epochs
from service.studies.ranking import Mode, Reversals, reversals
from service.studies.request import Asha, HyperBand, StudyRequest
from service.studies.standings import Standings


@dataclass(frozen=True, slots=True)
class Rung:
    """How the order after so many epochs differs from that at the end."""

    epoch: int
    reversals: Reversals


def rung_epochs(request: StudyRequest) -> list[int]:
    """The epochs at which trials are compared before their end, or else their thirds."""
    most, scheduler = most_epochs(request), request.scheduler
    epochs: list[int] = []
    match scheduler:
        case Asha():
            at = float(scheduler.grace_epochs)
            while at < most and len(epochs) < 32:
                epochs.append(int(at))
                at *= scheduler.reduction_factor
        case HyperBand():
            least = (most * scheduler.reduction_factor**-s for s in range(1, 32))
            epochs = [int(at) for at in least if at >= 1]
        case _:
            epochs = [-(-most // 3), -(-2 * most // 3)]
    return sorted({epoch for epoch in epochs if 0 < epoch < most})


def rungs(
    standings: Standings,
    metric: str,
    mode: Mode | None,
    results_at: Callable[[Sequence[int], Sequence[int]], Sequence[TrialResult]],
    epochs: Sequence[int],
) -> tuple[Rung, ...]:
    """The order at each rung, where trials have reported it, against that at the end."""
    request = standings.study.request
    final = {n: v for n, v in standings.searched(metric).items() if math.isfinite(v)}
    if mode is None or len(final) < 2:
        return ()
    shown = []
    for rung in rung_epochs(request):
        reported = [epoch for epoch in epochs if rung <= epoch < most_epochs(request)]
        if reported and min(reported) not in shown:
            shown.append(min(reported))
    number = {
        one.trial.number: one.trial.configuration
        for one in standings.outcomes
        if one.trial.phase is Phase.SEARCH and one.trial.configuration in final
    }
    values: dict[int, dict[int, list[float]]] = {epoch: {} for epoch in shown}
    for result in results_at(shown, sorted(number)) if shown else ():
        if result.trial in number and math.isfinite(result.metrics.get(metric, math.nan)):
            of = values[result.epoch].setdefault(number[result.trial], [])
            of.append(result.metrics[metric])
    found = []
    for epoch in shown:
        earlier = {n: math.fsum(of) / len(of) for n, of in values[epoch].items()}
        if len(earlier) >= 2:
            found.append(Rung(epoch, reversals(earlier, final, mode)))
    return tuple(found)


def on_ranks(found_rungs: Sequence[Rung]) -> list[str]:
    """A sentence for each rung at which the order is another one."""
    notes = []
    for rung in found_rungs:
        found = rung.reversals
        if found.reversed_pairs == 0:
            continue
        was = (
            "The best at the end was the best then, too."
            if found.best_was == 1
            else f"The best at the end was number {found.best_was} of {found.count} then."
        )
        notes.append(
            f"Ranks reverse: after {rung.epoch} epochs {found.reversed_pairs} of {found.pairs} "
            f"pairs are in another order than at the end. {was}"
        )
    return notes
