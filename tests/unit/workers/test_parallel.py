import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.unit.workers import gang
from workers import reporting
from workers.errors import PeerLost, WorkerError
from workers.events import Checkpoint, Event, Finished, Metrics, Tick
from workers.parallel import ALONE, Meeting, Peers, Share, join
from workers.train import train

CURVES = ["mlp", "conv", "every-draw", "clean-target", "vae", "learned"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stories of all cases, told by two processes."""
    folder = tmp_path_factory.mktemp("pair")
    with gang.pair(folder, list(gang.CASES)) as processes:
        for process in processes:
            process.join(120)
            assert process.exitcode == 0
    return folder


# Products in bfloat16 round by the shapes of their blocks.
TOLERANCES = dict.fromkeys(CURVES, 2e-6) | {"vae": 1e-3}


@pytest.mark.parametrize("name", CURVES)
def test_two_workers_give_the_same_loss_curve_as_one(name: str, pair: Path) -> None:
    one, _ = gang.alone(name)
    two = gang.story_of(pair, name, 0)
    assert len(one.losses) == 4
    assert two.losses == pytest.approx(one.losses, rel=TOLERANCES[name])
    assert two.held_out == pytest.approx(one.held_out, rel=TOLERANCES[name])
    assert two.checkpoints == one.checkpoints


# Where no gradient is so small that Adam makes a whole step of its rounding.
@pytest.mark.parametrize("name", ["mlp", "conv", "clean-target", "learned"])
def test_two_workers_end_in_the_same_state_as_one(name: str, pair: Path) -> None:
    _, one = gang.alone(name)
    two = gang.state_of(pair, name)
    assert two.keys() == one.keys()
    for key, tensor in one.items():
        if tensor.isfinite().all():
            error = (two[key].double() - tensor.double()).norm()
            assert error <= 1e-4 * tensor.double().norm(), key


def test_rank_0_alone_speaks(pair: Path) -> None:
    for name in CURVES:
        first, second = (gang.story_of(pair, name, rank) for rank in range(2))
        assert {"Metrics", "Checkpoint", "Grid", "Finished"} <= set(first.kinds)
        assert set(second.kinds) == {"Tick", "Finished"}
        last = 41 if name == "learned" else 20  # with three rounds of seven steps
        assert (first.step, first.reason) == (second.step, second.reason) == (last, "completed")


def test_a_stop_asked_of_one_worker_ends_both_at_the_same_step(pair: Path) -> None:
    first, second = (gang.story_of(pair, "stopped", rank) for rank in range(2))
    # Asked before the eighth step, told with it.
    assert (first.step, first.reason) == (second.step, second.reason) == (8, "interrupted")
    assert first.checkpoints == [8]
    assert second.checkpoints == []
    rest, _ = gang.alone("stopped", gang.state_of(pair, "stopped"))
    whole, _ = gang.alone("stopped")
    assert rest.step == whole.step == 20
    assert rest.losses == pytest.approx(whole.losses[1:], rel=2e-5)


def test_early_stopping_ends_both_workers_at_the_same_epoch(pair: Path) -> None:
    first, second = (gang.story_of(pair, "early", rank) for rank in range(2))
    assert (first.step, first.reason) == (second.step, second.reason) == (10, "stopped_early")
    assert first.checkpoints == [10]


def test_divergence_is_told_by_rank_0(pair: Path) -> None:
    assert gang.story_of(pair, "diverged", 0).error == "Diverged"
    assert gang.story_of(pair, "diverged", 1).error in ("Diverged", "PeerLost")


def test_a_worker_that_hangs_is_given_up_after_the_timeout(pair: Path) -> None:
    first, second = (gang.story_of(pair, "hung", rank) for rank in range(2))
    # Who waited for longer would have gone on with the one that had only slept.
    assert first.error == second.error == "PeerLost"


def test_a_worker_that_is_killed_is_missed_at_once(tmp_path: Path) -> None:
    """Long before the timeout of an hour."""
    with gang.pair(tmp_path, ["mlp"], victim=True) as (first, second):
        second.join(120)
        assert second.exitcode == -signal.SIGKILL
        first.join(120)
        assert first.exitcode == 0
    story = gang.story_of(tmp_path, "mlp", 0)
    assert story.error == "PeerLost"


def side_by_side(folder: Path, run: Callable[[Peers], list[Event]]) -> list[list[Event]]:
    """The events of two workers, each a thread."""

    def work(rank: int) -> list[Event]:
        with join(rank, 2, f"file://{folder}/meeting", host="127.0.0.1") as peers:
            return run(peers)

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(work, range(2)))


def ticks(events: list[Event], step: int) -> int:
    return sum(isinstance(event, Tick) and event.step == step for event in events)


def test_no_worker_waits_in_one_sum_for_the_whole_of_an_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sum gives up after ten minutes, so there is one with each piece of a long evaluation."""
    monkeypatch.setattr(reporting, "TICK_S", -1.0)
    first, second = side_by_side(
        tmp_path, lambda peers: [*train(gang.spec_of(epochs=2), gang.data(), peers=peers)]
    )
    for step in (5, 10):
        assert ticks(first, step) == ticks(second, step) > 3


@pytest.mark.parametrize("asked", [0, 1])
def test_a_stop_asked_of_one_worker_during_an_evaluation_ends_both(
    asked: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "TICK_S", -1.0)
    spec = gang.spec_of(epochs=2, early_stopping={"patience": 9})

    def run(peers: Peers) -> list[Event]:
        events: list[Event] = []

        def should_stop() -> bool:
            return peers.rank == asked and ticks(events, 5) > 0

        for event in train(spec, gang.data(), should_stop=should_stop, peers=peers):
            events.append(event)
        return events

    first, second = side_by_side(tmp_path, run)
    for events in (first, second):
        assert isinstance(events[-1], Finished)
        assert (events[-1].step, events[-1].reason) == (5, "interrupted")
    stopped = next(event for event in first if isinstance(event, Checkpoint))
    rest = [*train(spec, gang.data(), resume=stopped.train_state)]
    reported = [event.step for event in rest if isinstance(event, Metrics)]
    assert {5, 10} <= set(reported)
    assert reported[0] == 5


def test_shares_are_contiguous_and_cover_the_batch() -> None:
    for size in (1, 2, 3, 7):
        for total in (0, 1, 2, 6, 7, 100):
            peers = [Peers(rank, size, ALONE.all_reduce, ALONE.close) for rank in range(size)]
            rows = torch.arange(total)
            shares = [peer.share(total) for peer in peers]
            assert torch.equal(torch.cat([share.of(rows) for share in shares]), rows)
            sizes = [share.end - share.begin for share in shares]
            assert max(sizes) - min(sizes) <= 1
    columns = torch.arange(6).view(2, 3)
    assert Share(1, 3, 3).of(columns, 1).tolist() == [[1, 2], [4, 5]]
    assert Share.whole(2).of(columns) is columns


@pytest.fixture
def met(tmp_path: Path) -> Iterator[Peers]:
    meeting = Meeting("127.0.0.1")
    with join(0, 1, meeting.address, host="127.0.0.1") as peers:
        yield peers


def test_a_group_is_joined_over_tcp_and_closed_for_good(met: Peers) -> None:
    assert met.all_reduce(torch.ones(3)).tolist() == [1, 1, 1]
    met.close()
    met.close()
    with pytest.raises(PeerLost, match="closed"):
        met.all_reduce(torch.ones(3))


def test_a_worker_whose_peers_do_not_come_says_so() -> None:
    meeting = Meeting("127.0.0.1")
    with pytest.raises(PeerLost, match="Worker 0 of 2 did not meet the others"):
        join(0, 2, meeting.address, host="127.0.0.1", meeting_s=0.5)


@pytest.mark.parametrize("address", ["", "file://here", "tcp://127.0.0.1", "http://a:1"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(WorkerError, match="meeting place"):
        join(0, 2, address, host="127.0.0.1")
