"""The driver of a study: a real Tuner in its own process; the test is the service, and its trials
are a function with a known least value."""

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest

from service.cluster.ray_cluster import RayCluster
from service.cluster.ray_study import own_folder
from service.settings import ray_environment
from service.studies.channel import (
    SAID,
    Continued,
    Ended,
    Exchanged,
    Over,
    Paused,
    Reported,
    Result,
    Searched,
    Setup,
    Stored,
    Suggested,
    Takeover,
    Told,
)
from service.studies.checking import require
from service.studies.configuring import numbered
from service.studies.ledger import TrialResult
from service.studies.population import begun_at, taken_over
from service.studies.replaying import Known
from service.studies.request import Pbt, RandomSearch, StudyRequest
from tests.e2e.processes import process_named, wait_until_gone
from tests.factories import tiny_spec
from tests.unit.service.studies.test_tune_search import suggested

SCALE, RATE = "/trainer/spread/scale", "/trainer/optimizer/learning_rate"
EPOCHS = 9
PATIENCE_S, REST_S = 240.0, 0.25
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
RANGES: dict[str, Any] = {SCALE: {"loguniform": [0.05, 1.0]}, RATE: {"uniform": [0.001, 0.101]}}
GRID: dict[str, Any] = {SCALE: {"grid": [0.05, 0.2, 0.8]}, RATE: {"grid": [0.01, 0.05]}}

NAMES = (f"driver-study{n}-1" for n in count())


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    ray_environment(joining=False)
    made = RayCluster("", tmp_path_factory.mktemp("ray"), 2, "drivers")
    made.start()
    yield made
    made.close()


def study(
    search: dict[str, Any], scheduler: dict[str, Any], trials: int, space: Any = None
) -> StudyRequest:
    return require(
        StudyRequest.model_validate(
            {
                "name": "which noise",
                "spec": tiny_spec(epochs=EPOCHS).model_dump(),
                "space": space or RANGES,
                "objective": {"metric": "kid", "mode": "min"},
                "search": search,
                "scheduler": scheduler,
                "budget": {"trials": trials},
            }
        )
    )


def cost(values: dict[str, Any]) -> float:
    """Least at scale 0.2 and rate 0.05."""
    scale, rate = float(values[SCALE]), float(values.get(RATE, 0.05))
    return math.log(scale / 0.2) ** 2 + (20 * (rate - 0.05)) ** 2


@dataclass
class Played:
    """The service's side of a search: it stores in its own lists, and every trial is done at once.

    ``broken`` configurations fail.
    """

    ray: RayCluster
    request: StudyRequest
    broken: frozenset[int] = frozenset()
    values: dict[int, dict[str, Any]] = field(default_factory=dict)
    again: list[int] = field(default_factory=list)
    told: list[TrialResult] = field(default_factory=list)
    over: list[int] = field(default_factory=list)
    paused: set[int] = field(default_factory=set)
    pauses: int = 0
    exchanged: dict[int, list[Takeover]] = field(default_factory=dict)
    is_searched: bool = False
    detail: str = ""
    proxies: set[int] = field(default_factory=set)
    _outbox: list[Told] = field(default_factory=list)

    def begin(self) -> str:
        self.name = next(NAMES)
        is_told_again = isinstance(self.request.scheduler, Pbt)
        known = [] if is_told_again else [self._known(number) for number in sorted(self.values)]
        setup = Setup(
            request=self.request,
            known=tuple(known),
            told=() if is_told_again else tuple(self.told),
            at_once=2,
            most_epochs=EPOCHS,
        )
        self.again.clear()
        self.ray.start_driver(self.name, setup.model_dump_json())
        return self.name

    def run(self, until: int | None = None) -> "Played":
        """To the end, or until so many results are stored."""

        def is_there() -> bool:
            outbox, self._outbox = self._outbox, []
            lines = [told.model_dump_json() for told in outbox]
            heard = self.ray.exchange(self.name, lines)
            for line in heard.lines:
                self._hear(line)
            self.detail = heard.detail
            self.proxies |= _proxies()
            return heard.is_gone or (until is not None and len(self.told) >= until)

        news = threading.Event()
        # As the watcher does: each word is answered at once.
        self.ray.listen(spoken=news.set, ended=news.set)
        give_up_at = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up_at:
            news.clear()
            if is_there():
                return self
            if not self._outbox:
                news.wait(REST_S)
        raise AssertionError("the driver does not come to its end")

    def epochs(self, number: int) -> list[int]:
        return [result.epoch for result in self.told if result.trial == number]

    def _hear(self, line: str) -> None:
        match SAID.validate_json(line):
            case Suggested(configuration=number, values=values):
                assert self.values.setdefault(number, values) == values
                self.again.append(number)
                self._outbox += [Stored(), *self._results(number)]
            case Reported(configuration=number, epoch=epoch):
                metrics = {"kid_pca": self._at(number, epoch)}
                if epoch not in self.epochs(number):
                    self.told.append(TrialResult(len(self.told) + 1, number, epoch, metrics, NOON))
                self._outbox.append(Stored())
            case Exchanged(epoch=epoch, takeovers=takeovers):
                self._exchange(epoch, takeovers)
                self._outbox.append(Stored())
            case Paused(configuration=number):
                self.paused.add(number)
                self.pauses += 1
            case Continued(configuration=number):
                self.paused.remove(number)
            case Over(configuration=number):
                self.over.append(number)
            case Searched():
                self.is_searched = True

    def _exchange(self, epoch: int, takeovers: Sequence[Takeover]) -> None:
        self.exchanged.setdefault(epoch, []).extend(t for t in takeovers if t not in self.seen())
        for one in takeovers:
            values = taken_over(self.values[one.of], one.values, epoch)
            assert self.values.setdefault(one.configuration, values) == values
            assert self.epochs(one.of)[-1] >= epoch  # its checkpoint is there
            self.paused.add(one.configuration)
            self.paused.discard(one.instead_of)
            self._outbox += self._results(one.configuration)

    def seen(self) -> list[Takeover]:
        return [one for takeovers in self.exchanged.values() for one in takeovers]

    def _at(self, number: int, epoch: int) -> float:
        return cost(self.values[number]) + 1 / epoch

    def _results(self, number: int) -> list[Told]:
        is_told_again = isinstance(self.request.scheduler, Pbt)
        begun = begun_at(self.values[number])
        told = begun if is_told_again else max(self.epochs(number), default=0)
        if number in self.broken:
            return [Ended(configuration=number, is_failed=True, epoch=0, metrics={})]
        found: list[Told] = [
            Result(configuration=number, epoch=epoch, metrics={"kid_pca": self._at(number, epoch)})
            for epoch in range(told + 1, EPOCHS + 1)
        ]
        last = {"kid_pca": self._at(number, EPOCHS)}
        return [*found, Ended(configuration=number, is_failed=False, epoch=EPOCHS, metrics=last)]

    def _known(self, number: int) -> Known:
        history = tuple((r.epoch, r.metrics) for r in self.told if r.trial == number)
        standing = "finished" if number in self.over else "unfinished"
        if number in self.over and number in self.broken:
            standing = "failed"
        return Known(number, self.values[number], standing, history)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("search", "scheduler", "space", "trials"),
    [
        ({"kind": "random"}, {"kind": "none"}, RANGES, 4),
        ({"kind": "grid"}, {"kind": "none"}, GRID, 9),
        (
            # Draws alone: the last is the worst of all, so that something is cut.
            {"kind": "tpe", "startup_trials": 20},
            {"kind": "median", "grace_epochs": 2},
            RANGES,
            11,
        ),
        ({"kind": "gp", "startup_trials": 3}, {"kind": "none"}, RANGES, 8),
        ({"kind": "cma_es"}, {"kind": "asha", "grace_epochs": 2}, RANGES, 10),
    ],
    ids=["random", "grid", "tpe", "gp", "cma_es"],
)
def test_each_search_goes_on_after_a_failure_hears_of_results_and_ends(
    ray: RayCluster, search: dict[str, Any], scheduler: dict[str, Any], space: Any, trials: int
) -> None:
    """How near it comes to what is best, ``test_tune_search`` shows."""
    request = study(search, scheduler, trials, space)
    played = Played(ray, request, frozenset({1}))
    played.begin()
    played.run()
    assert played.is_searched, played.detail
    if search["kind"] == "random":  # the first, so that none is of a driver before
        assert len(played.proxies) <= 2  # each takes seconds to start, so none is for one trial
    wanted = 6 if search["kind"] == "grid" else trials
    assert played.again == sorted(played.values) == sorted(played.over) == list(range(wanted))
    assert played.epochs(1) == []  # it failed, and the others went on
    for number in played.values.keys() - {1}:
        assert played.epochs(number) == list(range(1, len(played.epochs(number)) + 1))
    is_cut = any(len(played.epochs(n)) < EPOCHS for n in played.values if n != 1)
    assert is_cut == (scheduler["kind"] != "none")
    untold = suggested(request, (), wanted)
    has_heard = played.values[wanted - 1] != untold[wanted - 1]
    assert has_heard == (search["kind"] in ("gp", "cma_es"))


def test_hyperband_pauses_and_continues(ray: RayCluster) -> None:
    played = Played(ray, study({"kind": "random"}, {"kind": "hyperband"}, 12))
    played.begin()
    played.run()
    assert played.is_searched, played.detail
    assert played.pauses > 0
    assert sorted(played.over) == list(range(12))
    assert sum(len(played.epochs(n)) == EPOCHS for n in range(12)) < 12
    assert any(len(played.epochs(n)) == EPOCHS for n in range(3, 12))


def test_any_two_of_a_population_exchange_and_a_second_driver_decides_as_the_first(
    ray: RayCluster,
) -> None:
    """Six on two places: were they cut into pairs, each would know one other."""
    space = {SCALE: {"loguniform": [0.05, 1.0]}}
    request = study({"kind": "random"}, {"kind": "pbt", "interval_epochs": 3}, 6, space)
    played = Played(ray, request)
    played.begin()
    played.run(until=20)  # beyond the first exchange
    first = {epoch: list(takeovers) for epoch, takeovers in played.exchanged.items()}
    assert list(first) == [3]
    os.kill(process_named("tune_driver", os.getpid()), signal.SIGKILL)
    played.run()
    assert not played.is_searched
    ray.end_driver(played.name)
    played = replace(played, paused=set(), _outbox=[])
    played.begin()
    played.run()
    assert played.is_searched, played.detail
    assert played.exchanged[3] == first[3]  # what was said again, was the same
    assert list(played.exchanged) == [3, 6]
    member = {number: number for number in range(6)}
    ends, pairs = dict.fromkeys(played.values, EPOCHS), set()
    for epoch, takeovers in played.exchanged.items():
        order = sorted(member, key=lambda number: played._at(number, epoch))
        assert {one.instead_of for one in takeovers} == set(order[-2:])  # a quarter of six
        assert {one.of for one in takeovers} <= set(order[:2])
        for one in takeovers:
            pairs.add((member[one.instead_of], member[one.of]))
            member[one.configuration] = member.pop(one.instead_of)
            ends[one.instead_of] = epoch
            assert 0.05 <= one.values[SCALE] <= 1.0
            assert one.values[SCALE] != played.values[one.of][SCALE]
    assert any(a // 2 != b // 2 for a, b in pairs)
    assert sorted(played.over) == sorted(member)
    for number, values in played.values.items():
        assert played.epochs(number) == list(range(begun_at(values) + 1, ends[number] + 1))


@pytest.mark.parametrize("scheduler", [{"kind": "asha", "grace_epochs": 2}, {"kind": "hyperband"}])
def test_a_driver_that_is_killed_is_followed_by_one_that_repeats_nothing(
    ray: RayCluster, scheduler: dict[str, Any]
) -> None:
    request = study({"kind": "random"}, scheduler, 12)
    played = Played(ray, request)
    played.begin()
    played.run(until=20)
    pids = _pids()
    os.kill(process_named("tune_driver", os.getpid()), signal.SIGKILL)
    played.run()
    assert not played.is_searched
    assert "signal 9" in played.detail
    ray.end_driver(played.name)
    wait_until_gone(pids)
    over = set(played.over)
    later = replace(played, paused=set())
    later.begin()
    later.run()
    assert later.is_searched, later.detail
    assert not over & set(later.again)
    assert sorted(later.over) == list(range(12))
    for number in range(12):
        assert later.epochs(number) == list(range(1, len(later.epochs(number)) + 1))
        assert later.values[number] == numbered(
            request.space, RandomSearch(kind="random"), 0, number
        )


def test_the_driver_and_its_folder_are_gone_with_its_actor(ray: RayCluster) -> None:
    played = Played(ray, study({"kind": "random"}, {"kind": "none"}, 12))
    played.begin()
    played.run(until=1)
    pids = _pids()
    os.kill(_actor(), signal.SIGKILL)
    wait_until_gone(pids)
    played.run()
    assert "actor has died" in played.detail
    ray.end_driver(played.name)


def test_an_end_leaves_no_process_and_a_driver_nobody_started_is_gone(ray: RayCluster) -> None:
    played = Played(ray, study({"kind": "random"}, {"kind": "none"}, 12))
    played.begin()
    played.run(until=1)
    pids = _pids()
    assert len(pids) >= 3  # the actor, the driver, a proxy
    ray.end_driver(played.name)
    wait_until_gone(pids)
    assert ray.exchange(played.name, []).is_gone
    assert ray.exchange("driver-study-none-1", []).is_gone
    ray.end_driver("driver-study-none-1")


def _actor() -> int:
    return psutil.Process(process_named("tune_driver", os.getpid())).ppid()


def _pids() -> frozenset[int]:
    """The actor of the driver, the driver, and the proxies of its trials."""
    driver = process_named("tune_driver", os.getpid())
    return frozenset({driver, _actor(), *_proxies()})


def _proxies() -> set[int]:
    """Those that are there, or being started."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # zombies included
            title = " ".join(child.cmdline())
            if "Proxy" in title or "ResourceTrainable" in title:  # as Tune calls it
                found.add(child.pid)
    return found


def test_a_folder_of_an_earlier_driver_is_removed(tmp_path: Path) -> None:
    earlier = own_folder("driver-study-1-1", tmp_path)
    (earlier / "study").mkdir()
    assert own_folder("driver-study-1-2", tmp_path).stat().st_mode & 0o777 == 0o700
    assert [path.name for path in tmp_path.iterdir()] == ["driver-study-1-2"]
