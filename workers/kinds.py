"""What differs from one kind of spec to another: one function for each question, and one match.

What runs, publishes, stores and serves a job asks here, and knows no trainer.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from torch import Tensor

from workers import build, costs, fork
from workers.checkpoint import Description
from workers.data import Dataset, DatasetInfo, held_out_count
from workers.errors import CheckpointError, SpecMismatch
from workers.events import Event
from workers.ica import costs as ica_costs
from workers.ica import forking as ica_forking
from workers.ica import training as ica_training
from workers.paper import costs as paper_costs
from workers.paper import training as paper_training
from workers.parallel import ALONE, Peers
from workers.quality import BARE, Shelf
from workers.quality import lacking as lacking_features
from workers.refit import standing_in as refit
from workers.refit.training import train as train_refit
from workers.rounds import Position, total_steps
from workers.spec import PAPER, REFIT, IcaSpec, PaperSpec, RefitSpec, Start, TrainSpec
from workers.train import never
from workers.train import train as train_by_gradients

AnySpec = TrainSpec | IcaSpec | RefitSpec | PaperSpec


@dataclass(frozen=True, slots=True)
class Plan:
    """A run seen from where it stands: the number of its last step, at most, and where it goes on.

    ``steps_per_epoch`` leaves out the steps of rounds that learn the spread.
    """

    total_steps: int
    steps_per_epoch: int
    step: int
    epoch: float


def train(
    spec: AnySpec,
    data: Dataset,
    *,
    resume: Mapping[str, Tensor] | None = None,
    should_stop: Callable[[], bool] = never,
    until_epoch: int | None = None,
    peers: Peers = ALONE,
    shelf: Shelf = BARE,
) -> Iterator[Event]:
    """Train to the end, at least one event a second; ``resume`` is a checkpoint's train state.

    ``should_stop`` is asked again and again; when it is true, a Checkpoint and Finished follow, and
    in a training by gradients once ``until_epoch`` is over.
    With several ``peers`` every one of them is given the same spec, data and train state; a stop
    asked of any of them ends all at the same step. The caller closes the peers, also after an
    error. ``shelf`` has the weights of feature extractors. Raises SpecMismatch, CheckpointError for
    a train state of another spec, Diverged, Unfit, ExtractorUnavailable, and PeerLost.
    """
    match spec:
        case TrainSpec():
            return train_by_gradients(
                spec,
                data,
                resume=resume,
                should_stop=should_stop,
                until_epoch=until_epoch,
                peers=peers,
                shelf=shelf,
            )
        case IcaSpec():
            return ica_training.train(
                spec, data, resume=resume, should_stop=should_stop, peers=peers
            )
        case RefitSpec():
            return train_refit(spec, data, resume=resume, should_stop=should_stop)
        case PaperSpec():
            return paper_training.train(spec, data, resume=resume, should_stop=should_stop)
        case _:
            assert_never(spec)


def resolve(spec: AnySpec, info: DatasetInfo) -> AnySpec:
    """The spec with everything filled in that the data decide; raises SpecMismatch."""
    if spec.resources.gpus_per_worker > 1:  # which stored specs may have
        raise SpecMismatch(
            "/resources/gpus_per_worker",
            "a worker computes on one GPU; ask for several workers with 1 each",
        )
    match spec:
        case TrainSpec():
            return build.resolve(spec, info)
        case IcaSpec():
            return ica_costs.resolve(spec, info)
        case RefitSpec():
            return refit.resolve(spec, info)
        case PaperSpec():
            return paper_costs.resolve(spec, info)
        case _:
            assert_never(spec)


def lacking(spec: AnySpec, shelf: Shelf) -> Iterator[SpecMismatch]:
    """What a spec names that this machine has not, and how to get it."""
    if isinstance(spec, TrainSpec) and spec.trainer.quality is not None:
        yield from lacking_features(spec.trainer.quality, shelf)


def estimate(spec: AnySpec, info: DatasetInfo) -> costs.Estimate:
    """What the run of a resolved spec will need; by arithmetic, nothing is allocated."""
    match spec:
        case TrainSpec():
            return costs.estimate(spec, info)
        case IcaSpec():
            return ica_costs.estimate(spec, info)
        case RefitSpec():
            return refit.estimate(spec, info)
        case PaperSpec():
            return paper_costs.estimate(spec, info)
        case _:
            assert_never(spec)


def plan(spec: AnySpec, rows: int, train_state: Mapping[str, Tensor]) -> Plan:
    """A run over so many training data, from a train state or, where that is empty, anew."""
    match spec:
        case TrainSpec():
            steps_per_epoch = -(-rows // spec.trainer.batch_size)
            at = Position.of(train_state)
            last = total_steps(spec.trainer, steps_per_epoch, at)
            return Plan(last, steps_per_epoch, at.step, at.model_step / steps_per_epoch)
        case IcaSpec():
            step = Position.of(train_state).step
            return Plan(ica_costs.most_steps(spec, rows), 1, step, float(step))
        case RefitSpec():
            step, of_scale = Position.of(train_state).step, spec.trainer.steps
            return Plan(refit.total_steps(spec), of_scale, step, step / of_scale)
        case PaperSpec():
            step = Position.of(train_state).step
            return Plan(paper_costs.total_parts(spec), 1, step, float(step))
        case _:
            assert_never(spec)


def epochs(spec: AnySpec) -> int:
    """What a run is measured in: its epochs, or one whole where their number is not known."""
    match spec:
        case TrainSpec():
            return spec.trainer.epochs
        case IcaSpec():
            return 1 if is_open_ended(spec) else ica_costs.most_steps(spec, 1)
        case RefitSpec():
            return len(refit.scales(spec))
        case PaperSpec():
            return paper_costs.total_parts(spec)
        case _:
            assert_never(spec)


def needs_checkpoint(spec: AnySpec) -> bool:
    """Whether a run can only begin from a checkpoint of another one, as a fork."""
    return isinstance(spec, RefitSpec)


def is_open_ended(spec: AnySpec) -> bool:
    """Whether a run ends when it has converged, mostly long before its last step."""
    return isinstance(spec, IcaSpec) and spec.trainer.method in ("ep", "em")


def first_checkpoint(spec: AnySpec) -> str:
    """When a run has its first checkpoint, in words."""
    match spec:
        case TrainSpec():
            every, epochs = spec.checkpoint_every_epochs, spec.trainer.epochs
            return f"after epoch {min(every, epochs, *spec.checkpoint_at_epochs)}"
        case IcaSpec():
            return "after the first iteration"
        case RefitSpec():
            return "after the encoder of the first scale"
        case PaperSpec():
            return "after the first part of the figure"
        case _:
            assert_never(spec)


def is_named(spec: AnySpec, epoch: float) -> bool:
    """Whether the spec names an epoch whose checkpoint is never thinned out."""
    return isinstance(spec, TrainSpec) and epoch in spec.checkpoint_at_epochs


def not_forkable(old: AnySpec, new: AnySpec) -> SpecMismatch | None:
    """Why no job of the new spec can begin from one of the old, whatever checkpoint that has."""
    if isinstance(old, PaperSpec) or isinstance(new, PaperSpec):
        wrong = "a figure neither begins from a checkpoint nor leaves one to begin from; submit the"
        return SpecMismatch("/trainer/kind", f"{wrong} spec as a new job")
    return None


def thread_s(spec: AnySpec) -> float | None:
    """Seconds of one thread that a run takes, where that is known before anything like it ran."""
    return paper_costs.thread_s(spec) if isinstance(spec, PaperSpec) else None


def advice(spec: AnySpec, info: DatasetInfo) -> tuple[str, ...]:
    """What to know of a resolved spec before it is submitted."""
    if isinstance(spec, PaperSpec):
        return paper_costs.advice(spec)
    held = held_out_count(info.count, spec.dataset.held_out_fraction)
    if held >= build.QUALITY_ROWS:
        return ()
    return (
        f"Of {info.count:,} data {held} are held out: held-out metrics, and what goes by them, say "
        f"little. Hold out {build.QUALITY_ROWS} or more (dataset.held_out_fraction).",
    )


def obstacles(
    start: Start, checkpoint: Description, spec: AnySpec, info: DatasetInfo
) -> Iterator[SpecMismatch]:
    """Why a resolved spec for these data cannot begin so; pointers are relative to the spec.

    Of kinds that :func:`not_forkable` lets through.
    """
    old, data = checkpoint.spec, checkpoint.dataset
    match old, spec:
        case TrainSpec(), TrainSpec():
            return fork.obstacles(start, checkpoint, spec, info)
        case _, RefitSpec():
            return refit.obstacles(start, checkpoint, spec, info)
        case IcaSpec(), IcaSpec():
            return ica_forking.obstacles(start, old, data.shape, data.digest, spec, info)
        case _:
            wrong = f"must stay {old.trainer.kind!r}: nothing of it is of use to another trainer"
            return iter([SpecMismatch("/trainer/kind", wrong)])


def carried_over(spec: AnySpec, kind: str | None) -> dict[str, Any]:
    """What a fork with a trainer of that kind has of its parent's spec, before its changes.

    All of it, unless the trainer becomes another one, of which only the networks are kept.
    """
    content = spec.model_dump(mode="json")
    if kind == PAPER and not isinstance(spec, PaperSpec):
        return {"trainer": {}}  # whose fork is refused, as not_forkable says
    if kind != REFIT or not isinstance(spec, TrainSpec):
        return content
    kept = {name: content[name] for name in ("seed", "dataset", "resources")}
    trainer = {name: content["trainer"][name] for name in ("network", "log_std_bound")}
    return {**kept, "trainer": trainer}


def taken_over(spec: AnySpec, start: Start, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The train state that a fork begins with, from a checkpoint's train state or weights."""
    match spec:
        case TrainSpec() if start == "weights":
            return fork.first_state(tensors)
        case TrainSpec():
            return fork.without_record(tensors)
        case IcaSpec():
            return ica_forking.taken_over(start, tensors)
        case RefitSpec():
            return refit.taken_over(tensors)
        case PaperSpec():
            raise CheckpointError("a figure begins with nothing that another job has left")
        case _:
            assert_never(spec)
