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
CONCURRENCY = 2
TOP, FRESH = 3, 5

Noise = tuple[str, float]  # kind, scale
NOISES: tuple[Noise, ...] = tuple((kind, scale) for kind in KINDS for scale in SCALES)


@dataclass(frozen=True)
class Choice:
    """What a study cost and said.

    ``epochs`` and ``seconds`` are shares of the full grid's on one seed, evaluation included, those
    of ``whole`` with the confirmation on both sides. ``regret`` is the mean over fresh seeds of the
    metric of its best less that of the grid's best, ``error`` the standard error of that
    difference over them. ``holds`` says whether the set that cannot be told from the best has the
    grid's best.
    """

    best: Noise
    epochs: float
    seconds: float
    whole: float
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
            "concurrency": CONCURRENCY,
            **fields,
        }
    )
    return resolved(asked)


def searched(
    rows: Mapping[Noise, Row], order: Sequence[Noise], judge: TrialScheduler
) -> dict[Noise, int]:
    """How many rungs each noise was trained for, two at one time, by the recorded seconds."""
    left, reached = list(reversed(order)), dict.fromkeys(order, 0)
    trials = {noise: stand_in(f"{noise[0]}-{noise[1]:g}", {}) for noise in order}
    running: list[tuple[float, int, Noise, int]] = []
    clock, number = 0.0, 0

    def begin(noise: Noise, rung: int) -> None:
        nonlocal number
        number += 1
        took = _seconds(rows[noise].rungs[rung : rung + 1])
        heapq.heappush(running, (clock + took, number, noise, rung))

    while left and len(running) < CONCURRENCY:
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
    return reached


def whole_seeds(data: str, rows: Sequence[Row]) -> int:
    """Of how many seeds, from 0 on, the whole grid is recorded."""
    seeds = 0
    while len([r for r in rows if (r.data, r.seed) == (data, seeds)]) == len(NOISES):
        seeds += 1
    return seeds


def replayed(data: str, rows: Iterable[Row], seed: int, seeds: int) -> Choice:
    """One study, whose search has this seed; the fresh ones are those after it, in a circle."""
    by_seed: dict[int, dict[Noise, Row]] = {}
    for row in rows:
        if row.data == data:
            by_seed.setdefault(row.seed, {})[row.kind, row.scale] = row
    order = list(NOISES)
    random.Random(seed).shuffle(order)
    mine = by_seed[seed]
    request = request_of(data)
    reached = searched(mine, order, scheduler(request, most_epochs(request)))
    number = {noise: at for at, noise in enumerate(order)}
    full = {
        noise: mine[noise].rungs[-1].metrics[METRIC]
        for noise, rungs in reached.items()
        if rungs == len(mine[noise].rungs) and mine[noise].failed is None
    }
    fresh = [(seed + 1 + k) % seeds for k in range(FRESH)]
    candidates = top({number[noise]: value for noise, value in full.items()}, TOP, "min")
    results = {at: {s: _final(by_seed[s][order[at]]) for s in fresh} for at in candidates}
    found = rank(results, {number[noise]: value for noise, value in full.items()}, "min")
    best = order[found.best]
    truth = min(order, key=lambda noise: _mean([_final(by_seed[s][noise]) for s in by_seed]))
    differences = [_final(by_seed[s][best]) - _final(by_seed[s][truth]) for s in fresh]
    regret = _mean(differences)
    error = math.sqrt(sum((d - regret) ** 2 for d in differences) / (FRESH - 1) / FRESH)
    spent = [mine[noise].rungs[:rungs] for noise, rungs in reached.items()]
    all_rungs = [mine[noise].rungs for noise in order]
    epochs = sum(rungs[-1].epoch for rungs in spent) / sum(rungs[-1].epoch for rungs in all_rungs)
    seconds = sum(map(_seconds, spent)) / sum(map(_seconds, all_rungs))
    after = sum(_seconds(by_seed[s][order[at]].rungs) for s in fresh for at in candidates)
    whole = (sum(map(_seconds, spent)) + after) / (sum(map(_seconds, all_rungs)) + after)
    like = found.indistinguishable
    return Choice(best, epochs, seconds, whole, regret, error, number[truth] in like, len(like))


def _seconds(rungs: Sequence[Rung]) -> float:
    return sum(rung.train_s + rung.evaluate_s for rung in rungs)


def _final(row: Row) -> float:
    return row.rungs[-1].metrics[METRIC] if row.failed is None else math.inf


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
