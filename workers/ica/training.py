"""The trainer ``ica`` as a stream of events.

A run that is stopped anywhere and resumed from its train state ends with the same bits (on the
CPU) as one that was not stopped. One iteration is one step, and one epoch.

Several workers each hold a share of the data and sum what an E-step finds; all else is computed by
each of them alike. Rank 0 alone speaks; the others yield Ticks, and Finished at the end.
"""

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

from workers.attended import Wish, attended, heeding
from workers.data import Dataset
from workers.device import device_of
from workers.errors import CheckpointError
from workers.events import Artifact, Checkpoint, Event, Finished, Metrics, Tick
from workers.ica.costs import resolve
from workers.ica.failures import Unfit
from workers.ica.methods import STATE_VERSION, Method
from workers.ica.plots import columns_png, convergence_png, sources_png
from workers.ica.told import Begun, End, Step, count_notice, error_values
from workers.parallel import Peers
from workers.spec import IcaSpec

_PLOTTED_ROWS = 4_000


def train(
    spec: IcaSpec,
    data: Dataset,
    *,
    resume: Mapping[str, Tensor] | None,
    should_stop: Callable[[], bool],
    peers: Peers,
) -> Iterator[Event]:
    """See ``workers.kinds.train``. Raises Unfit with a named reason as well."""
    spec = resolve(spec, data.info)
    if resume is not None and int(resume["version"]) != STATE_VERSION:
        raise CheckpointError("the train state was written in another format; start the run anew")
    wish, device = Wish(), device_of(spec.resources)

    def work() -> Iterator[Begun | Step | End]:
        method = Method(spec, data, resume, heeding(peers, wish), device, wish)
        return method.run()

    said = _Said(spec, data, 0 if resume is None else int(resume["step"]), peers.rank)
    for told in attended(work, wish, should_stop):
        yield from said.of(told)
        if isinstance(told, End):
            return
    yield from said.interrupted()


class _Said:
    """What a run says of itself: the events of what is told."""

    def __init__(self, spec: IcaSpec, data: Dataset, step: int, rank: int) -> None:
        self._spec, self._data, self._rank = spec, data, rank
        self._number = self._checkpointed = step
        self._last: Step | None = None
        self._baseline: dict[str, float] = {}

    def of(self, told: Begun | Step | End | None) -> Iterator[Event]:
        """The events of one thing that a method tells; None is its silence."""
        match told:
            case Begun() if self._rank == 0:
                yield from self._begun(told)
            case Step():
                self._number, self._last = told.number, told
                yield from self._step(told)
            case End():
                self._number, self._last = told.step.number, told.step
                if self._rank == 0:
                    yield from self._end(told)
                yield Finished(self._number, self._number, told.reason, told.message)
            case _:
                yield Tick(self._number, self._number)

    def _begun(self, begun: Begun) -> Iterator[Event]:
        if begun.count is not None:
            yield count_notice(begun.count)
        self._baseline = error_values(begun.baseline.mixing.cpu(), self._data.mixing, "fastica_")
        if self._baseline and not self._number:
            yield Metrics(0, 0, self._baseline)
        yield Tick(self._number, self._number)

    def _step(self, step: Step) -> Iterator[Event]:
        if self._rank:
            yield Tick(step.number, step.number)
            return
        yield Metrics(step.number, step.number, step.values)
        if step.number == 1 or step.number % self._spec.checkpoint_every_iterations == 0:
            yield self._checkpoint(step)

    def _end(self, end: End) -> Iterator[Event]:
        step = end.step
        yield from end.notices
        yield Metrics(step.number, step.number, step.values)
        yield self._checkpoint(step)
        at = step.number
        for plot in attended(lambda: self._plots(step), Wish(), lambda: False):
            match plot:
                case None:
                    yield Tick(at, at)
                case name, png:
                    yield Artifact(at, at, f"plots/{name}.png", "image/png", png)

    def _plots(self, step: Step) -> Iterator[tuple[str, bytes]]:
        if self._spec.trainer.method != "fastica":
            yield "convergence", convergence_png(step.state["history"])
        yield "columns", columns_png(step.model)
        yield "sources", sources_png(step.model, self._data.train[:_PLOTTED_ROWS])

    def interrupted(self) -> Iterator[Event]:
        """The events of a run that was asked to stop."""
        if self._rank == 0 and self._last is not None and self._checkpointed != self._number:
            yield self._checkpoint(self._last)
        message = "Interrupted; the run can go on from its last checkpoint."
        yield Finished(self._number, self._number, "interrupted", message)

    def _checkpoint(self, step: Step) -> Checkpoint:
        """The latest is the best: each step raises the evidence, or prepares one that does."""
        weights = step.model.tensors()
        if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
            raise Unfit("not_a_number", "The mixing matrix became infinite; scale the data down.")
        self._checkpointed = step.number
        return Checkpoint(
            step=step.number,
            epoch=step.number,
            weights=weights,
            train_state=step.state,
            metrics={**step.values, **self._baseline},
            is_best=True,
            is_named=False,
        )
