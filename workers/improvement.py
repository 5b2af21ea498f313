"""Whether a run improves: its best checkpoint, and when it has stopped improving."""

from collections.abc import Mapping

from workers.build import spread_spec
from workers.rounds import Rounds
from workers.spec import DeltaVae, MetricName, TrainSpec
from workers.spread import settled_epoch
from workers.train_state import TrainState


class Improvement:
    """Reads held-out metrics, and notes in the state what was best."""

    def __init__(self, spec: TrainSpec, state: TrainState) -> None:
        self._trainer = spec.trainer
        self._state = state
        warm_up = spec.trainer.warm_up_epochs if isinstance(spec.trainer, DeltaVae) else 0
        rounds = Rounds.of(spec.trainer)
        # A spread that has learned makes every later value worse than the ones before.
        learned = 0 if rounds is None else rounds.final + 1
        self._settled = max(settled_epoch(spread_spec(spec)), warm_up, learned)

    def note(self, values: Mapping[str, float], epoch: int) -> None:
        """Take in an evaluation, for early stopping."""
        stopping = self._trainer.early_stopping
        if stopping is None or epoch < self._settled:
            return
        state, cost = self._state, _cost(values, stopping.metric)
        if cost < state.stopping_best - stopping.min_delta:
            state.stopping_best, state.stale = cost, 0
        else:
            state.stale += 1

    @property
    def is_exhausted(self) -> bool:
        """Whether early stopping ends the run."""
        stopping = self._trainer.early_stopping
        return stopping is not None and self._state.stale >= stopping.patience

    def is_best(self, values: Mapping[str, float], epoch: int) -> bool:
        """Whether a checkpoint is the best so far; while the objective moves, the latest one is."""
        if epoch < self._settled:
            return True
        cost = _cost(values, self._trainer.best_metric)
        is_best = cost < self._state.best
        self._state.best = min(cost, self._state.best)
        return is_best


def _cost(values: Mapping[str, float], metric: MetricName) -> float:
    """A held-out metric as something to be lowered."""
    value = values[f"held_out_{metric}"]
    return -value if metric == "elbo_nats" else value
