"""The trainer ``ica``: what it tells, how it stops, and what it leaves."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from tests.factories import ica_spec
from tests.unit.workers.ica.test_sharding import together
from workers.attended import Stopped, Wish, attended, heeding
from workers.data import Dataset, load
from workers.events import (
    Artifact,
    Checkpoint,
    Event,
    Finished,
    Metrics,
    Notice,
    OutcomeReason,
    Tick,
)
from workers.failures import failed
from workers.ica.failures import Reason, Unfit
from workers.ica.methods import STATE_VERSION
from workers.ica.model import IcaModel
from workers.kinds import plan, train
from workers.parallel import ALONE, Peers
from workers.spec import IcaSpec

TRUTH = ("error_relative", "error_frobenius", "angle_degrees", "amari")


def data_of(spec: IcaSpec) -> Dataset:
    return load(spec.dataset, Path("unused"))


def events_of(
    spec: IcaSpec,
    resume: dict[str, Tensor] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    peers: Peers = ALONE,
) -> list[Event]:
    return list(train(spec, data_of(spec), resume=resume, should_stop=should_stop, peers=peers))


def checkpoints(events: list[Event]) -> list[Checkpoint]:
    return [event for event in events if isinstance(event, Checkpoint)]


def ending(events: list[Event]) -> Finished:
    last = events[-1]
    assert isinstance(last, Finished)
    return last


def test_a_run_tells_each_iteration_and_fastica_beside_it() -> None:
    spec = ica_spec(noise_variance=0.04)
    events = events_of(spec)
    metrics = [event for event in events if isinstance(event, Metrics)]
    assert set(metrics[0].values) == {f"fastica_{name}" for name in TRUTH}
    assert [m.step for m in metrics] == list(range(len(metrics)))
    for told in metrics[1:-1]:
        assert {"log_evidence_nats", "residual", "sigma", "noise_variance", "seconds", *TRUTH} <= (
            set(told.values)
        )
    assert ending(events).reason == "converged"
    assert metrics[-1].values["residual"] <= spec.trainer.tolerance
    assert math.isfinite(metrics[-1].values["held_out_log_evidence_nats"])
    assert ending(events).step <= plan(spec, 900, {}).total_steps
    last = checkpoints(events)[-1]
    assert {f"fastica_{name}" for name in TRUTH} <= set(last.metrics)
    names = [event.name for event in events if isinstance(event, Artifact)]
    assert names == ["plots/convergence.png", "plots/columns.png", "plots/sources.png"]


def test_a_run_recovers_the_matrix_that_its_data_were_drawn_with() -> None:
    spec = ica_spec(samples=5000, noise_variance=0.04)
    last = checkpoints(events_of(spec))[-1]
    assert last.metrics["angle_degrees"] < 3
    truth = data_of(spec).mixing
    assert truth is not None
    assert torch.equal(last.weights["true_mixing"], truth)


def one_step(spec: IcaSpec, state: dict[str, Tensor] | None) -> list[Event]:
    """An attempt that is asked to stop after its first step."""
    events: list[Event] = []

    def should_stop() -> bool:
        return any(isinstance(event, Metrics) and event.step for event in events)

    for event in train(spec, data_of(spec), resume=state, should_stop=should_stop):
        events.append(event)
    return events


@pytest.mark.parametrize(
    ("trainer", "reason"),
    [
        ({"method": "ep", "outer": "anderson", "noise_variance": 0.04}, "converged"),
        ({"method": "ep", "start": "random"}, "converged"),
        ({"method": "ep", "max_iterations": 1, "tolerance": 1e-12}, "iteration_limit"),
        ({"method": "em", "max_iterations": 3, "noise_variance": 0.04}, "iteration_limit"),
        (
            {
                "method": "paper",
                "noise_variance": 0.04,
                "max_iterations": 4,
                "importance_samples": 5,
            },
            "completed",
        ),
        ({"method": "fastica", "prior": {"kind": "logistic"}}, "converged"),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else value,
)
def test_a_run_that_was_stopped_and_resumed_ends_with_the_same_bits(
    trainer: dict[str, Any], reason: str
) -> None:
    spec = ica_spec(samples=400, **trainer)
    whole = events_of(spec)
    assert ending(whole).reason == reason
    state: dict[str, Tensor] | None = None
    part: list[Event] = []
    while not part or ending(part).reason == "interrupted":
        part = one_step(spec, state)
        state = dict(checkpoints(part)[-1].train_state)
    assert ending(part).reason == reason
    last, resumed = checkpoints(whole)[-1], checkpoints(part)[-1]
    assert (last.step, last.epoch) == (resumed.step, resumed.epoch)
    for name, tensor in last.weights.items():
        assert torch.equal(tensor, resumed.weights[name]), name
    told = (run.train_state["history"].nan_to_num() for run in (last, resumed))
    assert torch.equal(*told)


def test_the_number_of_components_is_chosen_and_said() -> None:
    events = events_of(ica_spec(components=None))
    (chosen,) = [e for e in events if isinstance(e, Notice) and e.code == "components_chosen"]
    assert chosen.message.startswith("2 component(s)")
    assert checkpoints(events)[-1].weights["mixing"].shape == (5, 2)


def test_a_contradicted_prior_is_warned_of() -> None:
    spec = ica_spec(samples=4000, prior={"kind": "bimodal"}, start="random")
    notices = [event.code for event in events_of(spec) if isinstance(event, Notice)]
    assert "prior_contradicted" in notices


def test_two_workers_fit_as_one_does_and_only_the_first_speaks(tmp_path: Path) -> None:
    spec = ica_spec(samples=2001, noise_variance=0.04)
    first, second = together(tmp_path, lambda peers: events_of(spec, peers=peers))
    assert {type(event) for event in second} == {Tick, Finished}
    assert ending(first) == ending(second)
    whole = checkpoints(events_of(spec))[-1].weights["mixing"]
    mixing = checkpoints(first)[-1].weights["mixing"]
    torch.testing.assert_close(mixing, whole, atol=2e-5, rtol=0)


@pytest.mark.parametrize("asked", [0, 1])
@pytest.mark.parametrize("at", [0, 2])
def test_a_stop_asked_of_one_worker_ends_both_at_the_same_step(
    tmp_path: Path, asked: int, at: int
) -> None:
    spec = ica_spec(samples=2001, noise_variance=0.04)

    def work(peers: Peers) -> list[Event]:
        seen: list[int] = []

        def should_stop() -> bool:
            return peers.rank == asked and (not at or bool(seen))

        events = []
        for event in train(spec, data_of(spec), should_stop=should_stop, peers=peers):
            events.append(event)
            if isinstance(event, Metrics | Tick) and event.step >= at:
                seen.append(event.step)
        return events

    first, second = together(tmp_path, work)
    assert ending(first).reason == ending(second).reason == "interrupted"
    assert ending(first).step == ending(second).step
    if at:
        assert checkpoints(first)[-1].step == ending(first).step


def test_a_sum_carries_the_wish_to_stop(tmp_path: Path) -> None:
    def work(peers: Peers) -> tuple[list[float], bool]:
        wish = Wish()
        heedful = heeding(peers, wish)
        summed = heedful.all_reduce(torch.tensor([1.0, 2.0])).tolist()
        if peers.rank == 1:
            wish.set()
        try:
            heedful.all_reduce(torch.zeros(3))
        except Stopped:
            return summed, True
        return summed, False

    assert together(tmp_path, work) == [([2.0, 4.0], True)] * 2


def test_a_long_computation_is_ticked_and_leaves_when_it_is_asked_to() -> None:
    wish, heard = Wish(), threading.Event()

    def work() -> Iterator[int]:
        yield 1
        while not wish():  # an E-step whose chunks ask
            time.sleep(0.01)
        heard.set()
        raise Stopped

    told = []
    for item in attended(work, wish, lambda: None in told):
        told.append(item)
    assert told[:2] == [1, None]
    assert heard.is_set()


def test_what_a_computation_raises_is_raised_where_it_is_attended() -> None:
    def work() -> Iterator[int]:
        yield 1
        raise Unfit("rank_deficient", "too few")

    told = attended(work, Wish(), lambda: False)
    assert next(told) == 1
    with pytest.raises(Unfit, match="too few"):
        list(told)


def test_who_leaves_early_does_not_leave_the_computation_behind() -> None:
    before = threading.active_count()
    wish = Wish()

    def work() -> Iterator[int]:
        yield from range(10**9)

    told = attended(work, wish, lambda: False)
    assert next(told) == 0
    told.close()  # type: ignore[attr-defined]
    assert wish()
    assert threading.active_count() == before


@pytest.mark.parametrize("reason", get_args(Reason))
def test_why_there_is_no_decomposition_is_the_reason_of_the_outcome(reason: Reason) -> None:
    ending = failed(Unfit(reason, "because"))
    assert (ending.reason, ending.message, ending.detail) == (reason, "because", None)
    assert reason in get_args(OutcomeReason)


def test_a_fork_of_a_fit_that_had_ended_goes_on_to_a_smaller_residual() -> None:
    rough = ica_spec(tolerance=1e-3)
    state = dict(checkpoints(events_of(rough))[-1].train_state)
    fine = ica_spec(tolerance=1e-8)
    again = events_of(fine, resume={**state, "again": torch.tensor(1)})
    assert ending(again).reason == "converged"
    assert checkpoints(again)[-1].metrics["residual"] <= 1e-8
    assert checkpoints(again)[0].step > int(state["step"]) - 2


def test_a_fit_begins_at_a_given_matrix_and_keeps_its_order_and_signs() -> None:
    first = checkpoints(events_of(ica_spec(noise_variance=0.04)))[-1].weights["mixing"]
    turned = -first.flip(1)
    begun = {"version": torch.tensor(STATE_VERSION), "step": torch.tensor(0)}
    spec = ica_spec(noise_variance=0.04)
    again = checkpoints(events_of(spec, resume={**begun, "given_mixing": turned}))[-1]
    torch.testing.assert_close(again.weights["mixing"], turned, atol=1e-4, rtol=0)
    given = ica_spec(noise_variance=0.04, start="given", mixing=turned.tolist())
    same = checkpoints(events_of(given))[-1]
    assert torch.equal(same.weights["mixing"], again.weights["mixing"])


def test_a_checkpoint_gives_its_model_back() -> None:
    last = checkpoints(events_of(ica_spec(samples=300)))[-1]
    model = IcaModel.of(last.weights, 5)
    for name, tensor in model.tensors().items():
        assert torch.equal(tensor, last.weights[name]), name
