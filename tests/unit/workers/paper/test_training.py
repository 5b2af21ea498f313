"""The trainer ``paper``: events, stops, and what is refused."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from workers.data import NO_DATA, DatasetInfo, describe
from workers.errors import CheckpointError, SpecMismatch
from workers.events import Artifact, Checkpoint, Event, Finished, Metrics, Notice
from workers.kinds import advice, epochs, estimate, plan, resolve, thread_s, train
from workers.paper.base import Part
from workers.paper.costs import asked_of, figure_of
from workers.spec import PaperSpec


def spec_of(figure: str, **fields: Any) -> PaperSpec:
    trainer = {"kind": "paper", "figure": figure, **fields.pop("trainer", {})}
    return PaperSpec.model_validate({"trainer": trainer, **fields})


def run(
    spec: PaperSpec,
    resume: Mapping[str, Tensor] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Event]:
    return [*train(spec, NO_DATA, resume=resume, should_stop=should_stop)]


def files_in(events: list[Event]) -> dict[str, bytes]:
    return {event.name: event.content for event in events if isinstance(event, Artifact)}


def checkpoints(events: list[Event]) -> list[Checkpoint]:
    return [event for event in events if isinstance(event, Checkpoint)]


def parts_of(spec: PaperSpec) -> Sequence[Part]:
    return figure_of(spec).parts(asked_of(spec))


MIXTURE = spec_of("mixture")


@pytest.fixture(scope="module")
def whole() -> list[Event]:
    return run(MIXTURE)


def test_a_figure_leaves_its_files_and_says_what_holds(whole: list[Event]) -> None:
    files = files_in(whole)
    assert files["figure.png"].startswith(b"\x89PNG")
    found = json.loads(files["figure.json"])
    assert (found["figure"], found["source"]) == ("mixture", "Appendix E")
    asked = {"scale": "quick", "repetitions": None, "first_repetition": 0, "seed": 0}
    assert found["asked"] == asked
    texts = [verdict["text"] for verdict in found["verdicts"]]
    notices = [event for event in whole if isinstance(event, Notice)]
    assert [notice.message for notice in notices] == [f"Holds: {text}" for text in texts]
    last = whole[-1]
    assert isinstance(last, Finished)
    assert (last.step, last.reason) == (10, "completed")
    assert last.message.startswith("Appendix E: 3 of 3 claims hold. Holds: ")
    assert all(text in last.message for text in texts)
    values: dict[str, float] = {}
    for event in whole:
        values |= event.values if isinstance(event, Metrics) else {}
    assert (values["claims_that_hold"], values["claims_that_do_not"]) == (3, 0)
    assert values["width"] == 1e-6


def test_every_part_leaves_a_checkpoint_from_which_the_rest_is_the_same_bytes(
    whole: list[Event],
) -> None:
    every = checkpoints(whole)
    assert [checkpoint.step for checkpoint in every] == [*range(1, 11)]
    assert plan(MIXTURE, 0, every[3].train_state).step == 4
    for checkpoint in (every[0], every[6], every[9]):
        rest = run(MIXTURE, checkpoint.train_state)
        assert [event.step for event in checkpoints(rest)] == [*range(checkpoint.step + 1, 11)]
        assert files_in(rest) == files_in(whole)


def test_a_stop_loses_the_part_in_work_and_no_more(whole: list[Event]) -> None:
    stopped: list[Event] = []
    for event in train(MIXTURE, NO_DATA, should_stop=lambda: len(checkpoints(stopped)) >= 3):
        stopped.append(event)
    last = stopped[-1]
    assert isinstance(last, Finished)
    assert (last.reason, last.step) == ("interrupted", len(checkpoints(stopped)))
    assert 3 <= last.step < 10
    assert not files_in(stopped)
    rest = run(MIXTURE, checkpoints(stopped)[-1].train_state)
    assert files_in(rest) == files_in(whole)


def test_a_run_that_is_to_stop_from_the_beginning_stops() -> None:
    [*_, last] = run(MIXTURE, should_stop=lambda: True)
    assert isinstance(last, Finished)
    assert last.reason == "interrupted"
    assert last.step <= 2  # begun, and on its way here, before the first look


def test_a_train_state_of_another_figure_is_refused(whole: list[Event]) -> None:
    with pytest.raises(CheckpointError, match="others by now"):
        run(spec_of("2"), checkpoints(whole)[0].train_state)


def test_repetitions_multiply_the_draws_of_a_figure_that_has_none() -> None:
    """Standard errors fall as 1/√4; each is estimated from thousands of draws."""
    tables = [files_in(run(spec_of("2", trainer={"repetitions": n}))) for n in (1, 4)]
    once, often = (
        [float(row.split(",")[4]) for row in table["figure.csv"].decode().split()[1:]]
        for table in tables
    )
    for single, four in zip(once, often, strict=True):
        assert four == pytest.approx(single / 2, rel=0.1)


@pytest.mark.parametrize(
    ("spec", "pointer"),
    [
        (spec_of("2", resources={"workers": 2}), "/resources/workers"),
        (spec_of("4a", resources={"workers": 2}), "/resources/workers"),
        (spec_of("2", resources={"gpus_per_worker": 1}), "/resources/gpus_per_worker"),
        (spec_of("2", trainer={"first_repetition": 1}), "/trainer/first_repetition"),
        (spec_of("2", dataset={"name": "digits"}), "/dataset"),
        (spec_of("6"), "/dataset"),
    ],
)
def test_what_a_figure_cannot_be_asked_is_refused_where_it_is_wrong(
    spec: PaperSpec, pointer: str
) -> None:
    with pytest.raises(SpecMismatch) as caught:
        resolve(spec, NO_DATA.info)
    assert caught.value.pointer == pointer


def test_shares_have_the_parts_of_the_whole() -> None:
    whole = spec_of("4b", trainer={"scale": "paper"})
    shares = [
        spec_of("4b", trainer={"scale": "paper", "repetitions": 1, "first_repetition": number})
        for number in range(10)
    ]
    names = [part.name for share in shares for part in parts_of(share)]
    assert names == [part.name for part in parts_of(whole)]
    assert sum(map(epochs, shares)) == epochs(whole) == 50
    total, single = thread_s(whole), thread_s(shares[0])
    assert total is not None
    assert single is not None
    assert total == pytest.approx(10 * single)


def test_a_figure_of_many_days_says_how_it_is_shared() -> None:
    [told] = advice(spec_of("4a", trainer={"scale": "paper"}), NO_DATA.info)
    assert "days of one thread" in told
    assert "submit 10 jobs with repetitions 1 and first_repetition 0 to 9" in told
    [single] = advice(spec_of("4a", trainer={"scale": "paper", "repetitions": 1}), NO_DATA.info)
    assert "hours of one thread" in single
    assert "jobs" not in single
    assert not advice(spec_of("4a"), NO_DATA.info)
    assert not advice(spec_of("2", trainer={"scale": "paper"}), NO_DATA.info)


@pytest.mark.parametrize(
    ("figure", "dataset"),
    [
        ("5", {"kind": "ring"}),  # vectors
        ("6", {"name": "mnist-10k"}),  # grey
    ],
)
def test_data_that_a_figure_cannot_show_are_refused(figure: str, dataset: dict[str, str]) -> None:
    spec = spec_of(figure, dataset=dataset)
    with pytest.raises(SpecMismatch) as caught:
        resolve(spec, describe(spec.dataset, Path("unused")))
    assert caught.value.pointer == "/dataset"


def test_a_figure_that_shows_data_pins_them_and_may_have_a_gpu() -> None:
    named = spec_of("5", dataset={"name": "mnist-10k"}, resources={"gpus_per_worker": 1})
    info = describe(named.dataset, Path("unused"))
    assert resolve(named, info).data_digest == info.digest
    assert asked_of(named).gpus == 1
    own = spec_of("5")
    assert resolve(own, NO_DATA.info) == own


def test_a_figure_that_trains_needs_what_its_largest_training_needs() -> None:
    spec = spec_of("6", trainer={"scale": "paper"}, dataset={"name": "celeba"})
    info = DatasetInfo("celeba", "", (64, 64, 3), 202_599, True, "", True, "")
    found = estimate(spec, info)
    assert found.worker_memory_bytes > 4 * 4 * 20_000_000  # weights of two networks, their moments
    assert found.steps == 20
    quick = estimate(spec_of("6", dataset={"name": "celeba"}), info)
    assert quick.worker_memory_bytes < found.worker_memory_bytes


def test_an_estimate_counts_parts() -> None:
    info: DatasetInfo = NO_DATA.info
    assert estimate(MIXTURE, info).steps == 10
    assert estimate(spec_of("4a"), info).steps == 20
    assert estimate(spec_of("4a", trainer={"repetitions": 8}), info).steps == 40
