"""The driver of a study as a test plays it: random configurations, stopped where the test says."""

from collections import deque
from collections.abc import Mapping, Sequence

from service.cluster.base import Heard
from service.cluster.inline import InlineCluster
from service.studies.channel import (
    TOLD,
    Continued,
    Ended,
    Over,
    Paused,
    Reported,
    Result,
    Said,
    Searched,
    Setup,
    Stored,
    Suggested,
    Told,
)
from service.studies.configuring import numbered
from service.studies.population import is_population
from service.studies.request import RandomSearch
from tests.played_population import PlayedPopulation


class PlayedDriver:
    """Says what a driver says; ``stop_at`` are the epochs at which configurations are stopped,
    ``pause_at`` those at which they pause until another one is over, and ``ahead`` how many it
    suggests before there is a place."""

    def __init__(
        self, setup: Setup, stop_at: Mapping[int, int], pause_at: Mapping[int, int], ahead: int
    ) -> None:
        self.setup = setup
        self.said: list[Said] = []
        self.is_dead = False
        self._stop_at, self._pause_at = stop_at, pause_at
        again = [one.number for one in setup.known if one.standing == "unfinished"]
        self._left = [*again, *range(len(setup.known), setup.request.budget.trials)]
        self._queues: dict[int, deque[Result | Ended]] = {}
        self._asked: deque[Suggested | Reported] = deque()
        self._paused: list[int] = []
        for _ in range(setup.at_once + ahead):
            self._suggest()

    def take(self) -> list[str]:
        said, self.said = self.said, []
        return [message.model_dump_json() for message in said]

    def hear(self, line: str) -> None:
        match TOLD.validate_json(line):
            case Stored():
                asked = self._asked.popleft()
                if isinstance(asked, Reported):
                    self._decide(asked)
            case (Result() | Ended()) as told:
                if told.configuration in self._queues:
                    self._queues[told.configuration].append(told)
                    if len(self._queues[told.configuration]) == 1:
                        self._next(told.configuration)

    def _suggest(self) -> None:
        if self._left:
            number = self._left.pop(0)
            self._queues[number] = deque()
            values = numbered(self.setup.request.space, RandomSearch(kind="random"), 0, number)
            assert values is not None
            self._ask(Suggested(configuration=number, values=values))
        elif not self._queues:
            self.said.append(Searched())

    def _ask(self, message: Suggested | Reported) -> None:
        self._asked.append(message)
        self.said.append(message)

    def _next(self, number: int) -> None:
        match self._queues[number][0]:
            case Result(epoch=epoch):
                self._ask(Reported(configuration=number, epoch=epoch))
            case Ended():
                self._leave(number)

    def _decide(self, asked: Reported) -> None:
        number = asked.configuration
        self._queues[number].popleft()
        if self._stop_at.get(number) == asked.epoch:
            self._leave(number)
            return
        if self._pause_at.get(number) == asked.epoch:
            self._paused.append(number)
            self.said.append(Paused(configuration=number))
        elif self._queues[number]:
            self._next(number)

    def _leave(self, number: int) -> None:
        del self._queues[number]
        self.said.append(Over(configuration=number))
        if self._paused:
            again = self._paused.pop(0)
            self.said.append(Continued(configuration=again))
            if self._queues[again]:
                self._next(again)
        self._suggest()


class PlayedCluster(InlineCluster):
    """Attempts in threads, and drivers that are played."""

    def __init__(self, cpus: float = 2.0) -> None:
        super().__init__(cpus)
        self.drivers: dict[str, PlayedDriver | PlayedPopulation] = {}
        self.ended: list[str] = []
        self.told: list[Told] = []
        self.stop_at: Mapping[int, int] = {}
        self.pause_at: Mapping[int, int] = {}
        self.ahead = self.exchanges = 0
        self.are_stillborn = False

    def start_driver(self, name: str, setup: str) -> None:
        told = Setup.model_validate_json(setup)
        driver: PlayedDriver | PlayedPopulation
        if is_population(told.request):
            driver = PlayedPopulation(told)
        else:
            driver = PlayedDriver(told, self.stop_at, self.pause_at, self.ahead)
        driver.is_dead = self.are_stillborn
        self.drivers[name] = driver

    def exchange(self, name: str, lines: Sequence[str]) -> Heard:
        self.exchanges += 1
        driver = self.drivers.get(name)
        if driver is None or driver.is_dead:
            return Heard(is_gone=True, detail="signal 9 ended it")
        for line in lines:
            self.told.append(TOLD.validate_json(line))
            driver.hear(line)
        return Heard(tuple(driver.take()))

    def end_driver(self, name: str) -> None:
        self.drivers.pop(name, None)
        self.ended.append(name)

    def kill_driver(self) -> None:
        (driver,) = self.drivers.values()
        driver.is_dead = True
