"""The driver of a study: a process that runs Ray Tune as a Ray job of its own.

``python -m service.cluster.tune_driver ADDRESS NAMESPACE DESK FOLDER``: it hears the service on
standard input and speaks to it on standard output, one JSON line for a message; the first line is
its :class:`~service.studies.channel.Setup`. It ends with its input, and with its parent.

Ray frees what a job holds when its process ends, and never what an actor's code holds that is
killed; so this is no actor.
"""

import dataclasses
import os
import queue
import sys
import threading
from functools import partial
from typing import NoReturn, TextIO

from workers.memory import lasting

with lasting():
    import ray
    from ray import tune
    from ray.tune.experiment import Trial
    from ray.tune.schedulers import PopulationBasedTraining

    from service.cluster.processes import tie_to_parent
    from service.cluster.tune_population import Population
    from service.cluster.tune_proxy import DESK, NAMESPACE, Proxy
    from service.cluster.tune_scheduling import scheduler
    from service.cluster.tune_search import searcher
    from service.cluster.tune_suggesting import LedgerSearch, Places
    from service.cluster.tune_trials import LedgerScheduler, Turns, standing
    from service.studies.channel import Over, Paused, Said, Searched, Setup
    from service.studies.request import CmaEsSearch, GpSearch, HyperBand, Pbt, TpeSearch

PROXY_MEMORY_BYTES = 1024  # Ray takes a bundle of nothing for an error


class Pipe:
    """The two ends of the channel. The end of the input is the end of this process."""

    def __init__(self, heard: TextIO, said: TextIO) -> None:
        self._heard = heard
        self._said = said
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._hear, name="hear", daemon=True).start()

    def hear(self) -> str:
        """The next line; waits for it."""
        return self._lines.get()

    def say(self, message: Said) -> None:
        """See :class:`service.cluster.tune_suggesting.Line`."""
        self._said.write(message.model_dump_json() + "\n")
        self._said.flush()

    def ask(self, message: Said) -> None:
        """See :class:`service.cluster.tune_suggesting.Line`."""
        self.say(message)
        self.hear()

    def _hear(self) -> None:
        for line in self._heard:
            self._lines.put(line)
        os._exit(1)


def search(setup: Setup, line: Pipe, desk: str, namespace: str, folder: str) -> None:
    """Run the search, within a folder that is nobody else's, and end this process with it."""
    request = setup.request
    deciding = scheduler(request, setup.most_epochs)
    past = standing(deciding, setup.known, setup.told)
    for number in sorted(past.stopped):
        line.say(Over(configuration=number))
    for number in sorted(past.paused):
        line.say(Paused(configuration=number))
    known = [
        dataclasses.replace(one, standing="finished") if one.number in past.stopped else one
        for one in setup.known
    ]
    left = request.budget.trials - sum(one.standing != "unfinished" for one in known)
    if left <= 0:
        _end(line)
    # A bracket of HyperBand that is not filled takes new trials for ever, and halves nothing; a
    # population that is not whole exchanges among those who happen to be there.
    all_at_once = isinstance(request.scheduler, HyperBand | Pbt)
    places = Places(
        setup.at_once + int(all_at_once),  # one of which waits, so that none is waited for
        past.paused,
        all_at_once=all_at_once,
        in_line=isinstance(request.scheduler, HyperBand),
    )
    deciding = scheduler(request, setup.most_epochs)  # that of the past has seen stand-ins
    if isinstance(deciding, PopulationBasedTraining):
        deciding = Population(deciding, request, setup.most_epochs, places, line)
    found = LedgerSearch(
        searcher(request, known), request, known, places, line, left, _ahead(setup)
    )
    tune.Tuner(
        tune.with_resources(
            Proxy,
            tune.PlacementGroupFactory(
                # On the driver's node: what a proxy of Tune writes, others would look for there.
                [{"CPU": 0, "memory": PROXY_MEMORY_BYTES, _this_node(): 0.0001}]
            ),
        ),
        param_space={DESK: desk, NAMESPACE: namespace},
        tune_config=tune.TuneConfig(
            search_alg=found,
            scheduler=LedgerScheduler(deciding, known, setup.told, places, line),
            num_samples=left,
            reuse_actors=True,
            trial_dirname_creator=_folder_of,
        ),
        run_config=tune.RunConfig(
            name="study",
            storage_path=folder,
            verbose=0,
            callbacks=[Turns(found, places, line, partial(_end, line))],
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    ).fit()


def _folder_of(trial: Trial) -> str:
    return str(trial.trial_id)


def _ahead(setup: Setup) -> int:
    """How many configurations wait in line, so that none is waited for: as many as are tried at one
    time, which may all have ended before the first proxies are there."""
    has_model = isinstance(setup.request.search, TpeSearch | GpSearch | CmaEsSearch)
    return 0 if has_model else setup.at_once


def _this_node() -> str:
    return f"node:{ray.util.get_node_ip_address()}"


def _end(line: Pipe, trouble: str | None = None) -> NoReturn:
    """The end of this process frees at once what its Ray job holds."""
    if trouble is None:
        line.say(Searched())
        os._exit(0)
    print(trouble, file=sys.stderr, flush=True)  # noqa: T201 - for the log of the actor
    os._exit(1)


def main() -> None:
    """Hear the setup, search, and say that it is over."""
    tie_to_parent()
    address, namespace, desk, folder = sys.argv[1:]
    said = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", newline="\n")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # Tune's own words are for the log
    line = Pipe(sys.stdin, said)
    setup = Setup.model_validate_json(line.hear())
    ray.init(address=address, namespace=namespace, log_to_driver=False, configure_logging=False)
    search(setup, line, desk, namespace, folder)


if __name__ == "__main__":
    main()
