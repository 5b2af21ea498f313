"""The driver of population-based training as a test plays it: at each rung the worst of all takes
over from the best, at four fifths of its scale."""

from collections import deque

from service.studies.channel import (
    TOLD,
    Continued,
    Ended,
    Exchanged,
    Over,
    Paused,
    Reported,
    Result,
    Said,
    Searched,
    Setup,
    Stored,
    Suggested,
    Takeover,
)
from service.studies.configuring import numbered
from service.studies.population import SCALE
from service.studies.request import Pbt, RandomSearch


class PlayedPopulation:
    """Says what a driver says, from the beginning, as one does that is told the past again."""

    def __init__(self, setup: Setup) -> None:
        scheduler = setup.request.scheduler
        assert isinstance(scheduler, Pbt)
        assert not setup.known
        assert not setup.told
        self.setup = setup
        self.said: list[Said] = []
        self.is_dead = False
        self._interval, self._most = scheduler.interval_epochs, setup.most_epochs
        self._metric = setup.request.objective.metric
        self._next = setup.request.budget.trials
        self._scales: dict[int, float] = {}
        self._members = list(range(self._next))
        self._queues: dict[int, deque[Result | Ended]] = {n: deque() for n in self._members}
        self._values: dict[int, float] = {}
        self._waiting: set[int] = set()
        self._asked: deque[Said] = deque()
        for number in self._members:
            search = RandomSearch(kind="random")
            values = numbered(setup.request.space, search, setup.request.seeds[0], number)
            assert values is not None
            self._scales[number] = values[SCALE]
            self._ask(Suggested(configuration=number, values=values))

    def take(self) -> list[str]:
        said, self.said = self.said, []
        return [message.model_dump_json() for message in said]

    def hear(self, line: str) -> None:
        match TOLD.validate_json(line):
            case Stored():
                self._go_on(self._asked.popleft())
            case (Result() | Ended()) as told:
                queue = self._queues.setdefault(told.configuration, deque())
                queue.append(told)
                if len(queue) == 1 and told.configuration not in self._waiting:
                    self._attend(told.configuration)

    def _ask(self, message: Said) -> None:
        self._asked.append(message)
        self.said.append(message)

    def _attend(self, number: int) -> None:
        if not self._queues[number]:
            return
        match self._queues[number][0]:
            case Result(epoch=epoch):
                self._ask(Reported(configuration=number, epoch=epoch))
            case Ended():
                self._members.remove(number)
                self.said.append(Over(configuration=number))
                if not self._members:
                    self.said.append(Searched())

    def _go_on(self, said: Said) -> None:
        match said:
            case Reported(configuration=number, epoch=epoch):
                result = self._queues[number].popleft()
                self._values[number] = result.metrics[self._metric]
                if epoch % self._interval or epoch == self._most:
                    self._attend(number)
                    return
                self._waiting.add(number)
                self.said.append(Paused(configuration=number))
                if self._waiting == set(self._members):
                    self._exchange(epoch)
            case Exchanged():
                self._waiting.clear()
                for number in self._members:
                    self.said.append(Continued(configuration=number))
                    self._attend(number)
            case _:
                return

    def _exchange(self, epoch: int) -> None:
        best, *_, worst = sorted(self._members, key=lambda number: self._values[number])
        number, self._next = self._next, self._next + 1
        self._scales[number] = 0.8 * self._scales[best]
        self._members[self._members.index(worst)] = number
        self._queues.setdefault(number, deque())
        self._waiting.add(number)
        values = {SCALE: self._scales[number]}
        taken = Takeover(configuration=number, instead_of=worst, of=best, values=values)
        self._ask(Exchanged(epoch=epoch, takeovers=(taken,)))
