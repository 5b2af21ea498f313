"""The trainer ``paper`` as a stream of events.

A part of a figure is one step, and one epoch, and each leaves a checkpoint with the rows so far.
So a run that is stopped anywhere loses the part in work at most, and ends with the same bytes when
it is resumed (on the CPU).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from torch import Tensor

from workers.attended import Wish, attended
from workers.data import Dataset
from workers.events import Artifact, Checkpoint, Event, Finished, Metrics, Notice, Tick
from workers.paper.base import Figure, Verdict
from workers.paper.costs import asked_of, figure_of, resolve
from workers.paper.results import File, files_of, metrics_of
from workers.paper.running import Done, Standing, run_parts
from workers.spec import PaperSpec


def train(
    spec: PaperSpec,
    data: Dataset,
    *,
    resume: Mapping[str, Tensor] | None,
    should_stop: Callable[[], bool],
) -> Iterator[Event]:
    """See ``workers.kinds.train``."""
    spec = resolve(spec, data.info)
    figure, asked = figure_of(spec), asked_of(spec, data)
    plan = figure.parts(asked)
    begun_at = standing = Standing.of(resume, plan)
    wish = Wish()
    for told in attended(lambda: run_parts(plan, begun_at, wish), wish, should_stop):
        if told is None:
            yield Tick(standing.done, standing.done)
        else:
            standing = told.standing
            yield from _done(told)
    if standing.done < len(plan):
        message = "Interrupted; the run can go on from its last checkpoint."
        yield Finished(standing.done, standing.done, "interrupted", message)
        return
    yield from _concluded(figure, spec, standing)


def _done(told: Done) -> Iterator[Event]:
    """A part is done: its numbers, and what going on from here needs."""
    step, values = told.standing.done, metrics_of(told.rows)
    if values:
        yield Metrics(step, step, values)
    tensors = told.standing.tensors()
    yield Checkpoint(
        step=step,
        epoch=step,
        weights={"rows": tensors["rows"]},
        train_state=tensors,
        metrics=values,
        is_best=False,
        is_named=False,
    )


def _concluded(figure: Figure, spec: PaperSpec, standing: Standing) -> Iterator[Event]:
    """All parts are done: verdicts and files. A stop is not heard any more: this takes seconds."""
    step = standing.done
    yield Tick(step, step)
    verdicts: tuple[Verdict, ...] = ()
    for told in attended(lambda: _conclusions(figure, spec, standing), Wish(), lambda: False):
        match told:
            case None:
                yield Tick(step, step)
            case File():
                yield Artifact(step, step, told.name, told.media_type, told.content)
            case _:
                verdicts = told
                yield Metrics(step, step, counts(verdicts))
                for verdict in verdicts:
                    yield Notice("verdict", sentence(verdict))
    yield Finished(step, step, "completed", message_of(figure, verdicts))


def _conclusions(
    figure: Figure, spec: PaperSpec, standing: Standing
) -> Iterator[tuple[Verdict, ...] | File]:
    verdicts = figure.verdicts(standing.rows)
    yield verdicts
    asked = spec.trainer.model_dump(mode="json", exclude={"kind", "figure"}) | {"seed": spec.seed}
    yield from files_of(figure, asked, standing.rows, standing.kept, verdicts)


def counts(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """How many claims hold, do not, and are not decided, as metrics."""
    every = [verdict.holds for verdict in verdicts]
    return {
        "claims_that_hold": float(every.count(True)),
        "claims_that_do_not": float(every.count(False)),
        "claims_not_decided": float(every.count(None)),
    }


def sentence(verdict: Verdict) -> str:
    """A verdict for people."""
    return f"{verdict.word.capitalize()}: {verdict.text}"


def message_of(figure: Figure, verdicts: Sequence[Verdict]) -> str:
    """How a run has ended, with all of its verdicts."""
    hold = sum(verdict.holds is True for verdict in verdicts)
    opening = f"{figure.source}: {hold} of {len(verdicts)} claims hold."
    return " ".join((opening, *map(sentence, verdicts)))
