"""A study replayed over a recorded grid: ASHA's choices, their cost, and how good its best is."""

import heapq
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import TrialScheduler

from service.cluster.tune_scheduling import EPOCH, scheduler, stand_in
from service.studies.objective import most_epochs, resolved
from service.studies.presets import KIND, REDUCTION_FACTOR, SCALE
from service.studies.ranking import rank, top
from service.studies.request import StudyRequest
from tests.bench.choice.recording import EPOCHS, KINDS, SCALES, Row, Rung, spec_of

METRIC = "kid_pca"
AT_ONCE = (1, 2)  # trials at one time; one is what the preset asks for
TOP, FRESH = 3, 5
LEAST_SEEDS = 5  # of a grid that studies are replayed over

Noise = tuple[str, float]  # kind, scale
NOISES: tuple[Noise, ...] = tuple((kind, scale) for kind in KINDS for scale in SCALES)


@dataclass(frozen=True)
class Choice:
    """What a study cost and said.

    ``epochs`` and ``seconds`` are shares of the full grid's on one seed: of its epochs, and of the
    time from its begin to its end with as many trials at one time, evaluation included; ``whole``
    is that with the confirmation on both sides. ``regret`` is the mean over seeds that have chosen
    nothing of the metric of its best less that of the grid's best, ``error`` the standard error of
    that difference over them. ``holds`` says whether the set that cannot be told from the best has
    the grid's best, ``confirmed`` how many were trained again.
    """

    best: Noise
    epochs: float
    seconds: float
    whole: float
    confirmed: int
    regret: float
    error: float
    holds: bool
    like: int


def request_of(data: str, **fields: Any) -> StudyRequest:
    """The study: any noise of the grid, no trial stopped before a third of its epochs."""
    asked = StudyRequest.model_validate(
        {
            "name": "which noise",
            "spec": spec_of(data, KINDS[0], SCALES[0], 0).model_dump(mode="json"),
            "space": {KIND: {"choice": list(KINDS)}, SCALE: {"grid": list(SCALES)}},
            "objective": {"metric": METRIC, "mode": "min"},
            "search": {"kind": "grid"},
            "scheduler": {
                "kind": "asha",
                "grace_epochs": EPOCHS[data] // 3,
                "reduction_factor": REDUCTION_FACTOR,
            },
            "budget": {"trials": len(NOISES)},
            **fields,
        }
    )
    return resolved(asked)


def searched(
    rows: Mapping[Noise, Row], order: Sequence[Noise], judge: TrialScheduler, at_once: int
) -> tuple[dict[Noise, int], float]:
    """How many rungs each noise was trained for, so many at one time, and the seconds to the end of
    the last; by the recorded seconds of each rung."""
    left, reached = list(reversed(order)), dict.fromkeys(order, 0)
    trials = {noise: stand_in(f"{noise[0]}-{noise[1]:g}", {}) for noise in order}
    running: list[tuple[float, int, Noise, int]] = []
    clock, number = 0.0, 0

    def begin(noise: Noise, rung: int) -> None:
        nonlocal number
        number += 1
        took = _seconds(rows[noise].rungs[rung : rung + 1])
        heapq.heappush(running, (clock + took, number, noise, rung))

    while left and len(running) < at_once:
        judge.on_trial_add(None, trials[left[-1]])
        begin(left.pop(), 0)
    while running:
        clock, _, noise, rung = heapq.heappop(running)
        found, reached[noise] = rows[noise].rungs[rung], rung + 1
        told = {EPOCH: found.epoch, METRIC: found.metrics.get(METRIC, math.nan)}
        goes_on = judge.on_trial_result(None, trials[noise], told) == TrialScheduler.CONTINUE
        if goes_on and rung + 1 < len(rows[noise].rungs):
            begin(noise, rung + 1)
            continue
        judge.on_trial_complete(None, trials[noise], told)
        if left:
            judge.on_trial_add(None, trials[left[-1]])
            begin(left.pop(), 0)
    return reached, clock


def _elapsed(seconds: Iterable[float], at_once: int) -> float:
    """Seconds to the end of runs that begin in their order, so many at one time."""
    ends = [0.0] * at_once
    for took in seconds:
        heapq.heapreplace(ends, ends[0] + took)
    return max(ends)


def whole_seeds(data: str, rows: Sequence[Row]) -> int:
    """Of how many seeds, from 0 on, the whole grid is recorded."""
    seeds = 0
    while len([r for r in rows if (r.data, r.seed) == (data, seeds)]) == len(NOISES):
        seeds += 1
    return seeds


def replayed(
    data: str, rows: Iterable[Row], seed: int, seeds: int, at_once: int = AT_ONCE[0]
) -> Choice:
    """One study, whose search has this seed; the fresh ones are those after it, in a circle, and
    those that are left judge what it chose: the fresh ones where there are not two."""
    by_seed: dict[int, dict[Noise, Row]] = {}
    for row in rows:
        if row.data == data:
            by_seed.setdefault(row.seed, {})[row.kind, row.scale] = row
    order = list(NOISES)
    random.Random(seed).shuffle(order)
    mine = by_seed[seed]
    request = request_of(data, concurrency=at_once)
    judge = scheduler(request, most_epochs(request))
    reached, took = searched(mine, order, judge, at_once)
    number = {noise: at for at, noise in enumerate(order)}
    full = {
        noise: mine[noise].rungs[-1].metrics[METRIC]
        for noise, rungs in reached.items()
        if rungs == len(mine[noise].rungs) and mine[noise].failed is None
    }
    fresh = [(seed + 1 + k) % seeds for k in range(min(FRESH, seeds - 1))]
    candidates = top({number[noise]: value for noise, value in full.items()}, TOP, "min")
    results = {at: {s: _final(by_seed[s][order[at]]) for s in fresh} for at in candidates}
    found = rank(results, {number[noise]: value for noise, value in full.items()}, "min")
    best = order[found.best]
    truth = min(order, key=lambda noise: _mean([_final(by_seed[s][noise]) for s in by_seed]))
    judging = [s for s in range(seeds) if s != seed and s not in fresh]
    if len(judging) < 2:
        judging = fresh
    differences = [_final(by_seed[s][best]) - _final(by_seed[s][truth]) for s in judging]
    regret, count = _mean(differences), len(judging)
    error = math.sqrt(sum((d - regret) ** 2 for d in differences) / (count - 1) / count)
    spent = [mine[noise].rungs[:rungs] for noise, rungs in reached.items()]
    all_rungs = [mine[noise].rungs for noise in order]
    epochs = sum(rungs[-1].epoch for rungs in spent) / sum(rungs[-1].epoch for rungs in all_rungs)
    full_took = _elapsed(map(_seconds, all_rungs), at_once)
    confirming = [_seconds(by_seed[s][order[at]].rungs) for s in fresh for at in candidates]
    after = _elapsed(confirming, at_once)
    like = found.indistinguishable
    return Choice(
        best=best,
        epochs=epochs,
        seconds=took / full_took,
        whole=(took + after) / (full_took + after),
        confirmed=len(candidates),
        regret=regret,
        error=error,
        holds=number[truth] in like,
        like=len(like),
    )


def _seconds(rungs: Sequence[Rung]) -> float:
    return sum(rung.train_s + rung.evaluate_s for rung in rungs)


def _final(row: Row) -> float:
    return row.rungs[-1].metrics[METRIC] if row.failed is None else math.inf


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
