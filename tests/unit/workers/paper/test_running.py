from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor

from workers.errors import CheckpointError
from workers.paper.base import Keep, Part, Row
from workers.paper.running import Done, Standing, run_parts


def drawn(seed: int) -> Iterator[Row | Keep | None]:
    yield {"seed": seed, "value": torch.rand(1, generator=generator(seed)).double().item() / 3}
    yield None
    yield Keep(f"noise of {seed}", torch.rand(2, 3, generator=generator(seed)))
    yield {"seed": seed, "value": seed / 7, "method": "é"}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


PLAN = [Part(f"seed={seed}", partial(drawn, seed)) for seed in range(4)]


def done(state: dict[str, Tensor] | None) -> list[Done]:
    standing = Standing.of(state, PLAN)
    return [event for event in run_parts(PLAN, standing, lambda: False) if event is not None]


def test_a_run_resumed_after_any_part_ends_with_the_same_bytes() -> None:
    whole = done(None)
    assert len(whole) == 4
    for at, event in enumerate(whole):
        rest = done(event.standing.tensors())
        assert len(rest) == 3 - at
        if rest:
            ends = [found[-1].standing.tensors() for found in (rest, whole)]
            assert [*ends[0]] == [*ends[1]]
            assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert [*whole[-1].standing.kept] == [f"noise of {seed}" for seed in range(4)]


def test_a_stop_within_a_part_forgets_its_rows_and_keeps_those_of_parts_before() -> None:
    answers = iter(
        [False] * 5 + [False] * 3 + [True]
    )  # the second part has yielded a row and noise
    events = list(run_parts(PLAN, Standing(), lambda: next(answers)))
    found = [event for event in events if event is not None]
    assert [event.standing.parts for event in found] == [("seed=0",)]
    assert len(found[0].standing.rows) == 2
    assert [*found[0].standing.kept] == ["noise of 0"]


def test_a_train_state_of_another_plan_or_format_is_refused() -> None:
    state = done(None)[1].standing.tensors()
    with pytest.raises(CheckpointError, match="others by now"):
        Standing.of(state, PLAN[1:])
    with pytest.raises(CheckpointError, match="another format"):
        Standing.of({**state, "version": torch.tensor(99)}, PLAN)
