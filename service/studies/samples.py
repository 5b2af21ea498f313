"""The same latents over the best trials' last checkpoints, one row each."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.drawings import SampleRequest, archive, make_ready_to_plot
from service.errors import CheckpointNotFound, FieldError, InvalidQuery, NoAnswerYet
from service.jobs import CheckpointInfo
from service.sampling import Sampling
from service.studies import best as ranked
from service.studies.labels import label
from service.studies.plots import short
from service.studies.ranking import top
from service.studies.standings import Outcome, Standings
from workers.images import Samples, filmstrip_png
from workers.layouts import rows_png

_LABEL_MAX = 60  # letters beside a row


@dataclass(frozen=True, slots=True)
class Source:
    """A trial that is drawn from, best first, and its checkpoint."""

    outcome: Outcome
    label: str
    checkpoint: CheckpointInfo


@dataclass(frozen=True, slots=True)
class StudySamples:
    """Rows of as many samples each, (k, n, *shape of a datum)."""

    sources: tuple[Source, ...]
    rows: tuple[Samples, ...]
    is_image: bool

    def png(self) -> bytes:
        """A labelled row of pictures for each trial; vectors become scatter plots."""
        labelled = [
            (source.label, row) for source, row in zip(self.sources, self.rows, strict=True)
        ]
        if self.is_image:
            return rows_png(labelled, True)
        make_ready_to_plot()
        return filmstrip_png(labelled)

    def npz(self) -> bytes:
        """A NumPy archive with ``samples``, and the ``trials`` and ``configurations`` of rows."""
        trials = [source.outcome.trial for source in self.sources]
        return archive(
            {
                "samples": np.stack(self.rows),
                "trials": np.array([trial.number for trial in trials]),
                "configurations": np.array([trial.configuration for trial in trials]),
            }
        )


def sources(standings: Standings, sampling: Sampling, k: int) -> tuple[Source, ...]:
    """The k best trials that have a checkpoint, one for each configuration.

    In the order of fresh seeds where they have confirmed anything, then of the search. Raises
    NoAnswerYet where no trial can be drawn from.
    """
    objective = standings.study.request.objective
    found: list[Source] = []
    for number in _order(standings):
        if len(found) == k:
            break
        for one in _of(standings, number):
            try:
                checkpoint = sampling.checkpoint(one.trial.job_id, "latest")
            except CheckpointNotFound:
                continue
            found.append(Source(one, _label(one, objective.metric), checkpoint))
            break
    if not found:
        raise NoAnswerYet("no trial that has ended has a checkpoint to draw from")
    return tuple(found)


def draw(
    sampling: Sampling, chosen: Sequence[Source], n: int, seed: int, values_max: int
) -> StudySamples:
    """n samples of the same latents from each; raises InvalidQuery for too many numbers."""
    request = SampleRequest(n=n, seed=seed, spread=False)
    drawn = [
        sampling.draw(source.checkpoint, request, values_max // len(chosen)) for source in chosen
    ]
    if len({samples.array.shape for samples in drawn}) > 1:
        problem = "must be 1, as the trials' data differ in shape"
        raise InvalidQuery("rows of different shapes", (FieldError("/query/k", problem),))
    return StudySamples(tuple(chosen), tuple(each.array for each in drawn), drawn[0].is_image)


def etag(sampling: Sampling, chosen: Sequence[Source], n: int, seed: int, form: str) -> str:
    """Hash of everything that determines the bytes; nothing is loaded for it."""
    request = SampleRequest(n=n, seed=seed, spread=False)
    content: list[Any] = [
        [source.label, source.outcome.trial.number, sampling.etag(source.checkpoint, request, form)]
        for source in chosen
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _order(standings: Standings) -> list[int]:
    objective = standings.study.request.objective
    found = ranked.best(standings)
    fresh = {} if found.ranking is None else found.ranking.means
    orders = (fresh, standings.searched(objective.metric), standings.reached(objective.metric))
    return list(
        dict.fromkeys(
            number for values in orders for number in top(values, len(values), objective.mode)
        )
    )


def _of(standings: Standings, number: int) -> list[Outcome]:
    """A configuration's trials: those that ran to their end first, fresh seeds before others."""
    mine = [one for one in standings.outcomes if one.trial.configuration == number]
    return sorted(
        mine,
        key=lambda one: (not one.is_whole, one.trial.phase.value, one.trial.number),
    )


def _label(one: Outcome, metric: str) -> str:
    values = ", ".join(
        f"{short(pointer).rpartition('/')[2]} {label(value)}"
        for pointer, value in one.trial.values.items()
    )
    value = one.value(metric)
    told = f" {metric} {value:.3g}" if math.isfinite(value) else ""
    return f"{one.trial.configuration}:{told}  {values}"[:_LABEL_MAX]
