"""Runs of the studies in several processes, each as soon as what it follows from is measured."""

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

import torch

from tests.bench.measured.material import Kept
from tests.bench.measured.order import order
from tests.bench.measured.record import Line, Record
from tests.bench.measured.running import Bench
from tests.bench.measured.studies import Run, Study, run_of
from workers.data import Dataset


def measure_together(
    studies: Sequence[tuple[Study, Dataset]],
    kept: Kept,
    record: Record,
    seeds: int,
    only: str | None,
    workers: int,
) -> Iterator[tuple[Run, Line]]:
    """Measure what the file does not hold, and append it; yields each run when it is done.

    A fork waits for its parent, whose train state it begins from, and a run whose scale follows
    from others for those.
    """
    data = {study.name: rows for study, rows in studies}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin, (data, kept)) as pool:
        under_way: dict[Future[Line], Run] = {}
        while True:
            busy = {run.key for run in under_way.values()}
            for run in _ready(studies, record, seeds, only):
                if len(under_way) == workers:
                    break
                if run.key not in busy:
                    busy.add(run.key)
                    under_way[pool.submit(_measure, run)] = run
            if not under_way:
                return
            done, _ = wait(under_way, return_when=FIRST_COMPLETED)
            for future in done:
                line = future.result()
                record.add(line)
                yield under_way.pop(future), line


def _ready(
    studies: Sequence[tuple[Study, Dataset]], record: Record, seeds: int, only: str | None
) -> Iterator[Run]:
    """What can be measured now; a fork whose parent is no arm of the asked ones trains it again."""
    for study, data in studies:
        for arm, seed, scale in order(study, seeds):
            if only not in (None, arm, study.name):
                continue
            run = run_of(study, data.info, arm, seed, scale, record.lines)
            if run is None or record.holds(run.key):
                continue
            waits = only in (None, study.name) and run.parent is not None
            if waits and run.parent is not None and not record.holds((run.parent.digest(), None)):
                continue
            yield run


_data: dict[str, Dataset] = {}
_kept: list[Kept] = []
_benches: dict[str, Bench] = {}


def _begin(data: dict[str, Dataset], kept: Kept) -> None:
    """What a process has from its start; one thread, as the runs share the cores."""
    torch.set_num_threads(1)
    _data.update(data)
    _kept.append(kept)


def _measure(run: Run) -> Line:
    name = run.study.name
    if name not in _benches:
        _benches[name] = Bench(_data[name], _kept[0])
    return _benches[name].measure(run)
