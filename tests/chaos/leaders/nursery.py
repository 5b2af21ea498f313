"""Starts services by forking a process that has imported everything, in tenths of a second:
``python -m tests.chaos.leaders.nursery``.

Each line of its input is a service as JSON; it answers with the process id of each.
"""

import contextlib
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from api.main import _listen, answer, running_services
from service.errors import ConfigurationError
from service.jobstore import JobStore
from service.settings import Settings
from tests.chaos.leaders.workshop import FileCluster
from workers.artifacts import open_store


def serve(how: dict[str, Any]) -> None:
    """As ``spreadtrain serve`` does, but over the workshop."""
    folder = Path(how["data_dir"])
    settings = Settings(
        data_dir=folder,
        database_url=how["database_url"],
        artifacts_uri=how["artifacts_uri"],
        port=how["port"],
        lease_s=how["lease_s"],
    )
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    with (
        contextlib.closing(JobStore.open(settings.database)) as jobs,
        contextlib.closing(FileCluster(Path(how["workshop"]), how["cores"])) as cluster,
        contextlib.closing(_listen(settings)) as listener,
        running_services(
            settings, jobs, open_store(settings.artifacts), cluster, f"{folder.name}:{how['port']}"
        ) as services,
    ):
        answer(services, settings, listener)


def _be_born(how: dict[str, Any]) -> NoReturn:
    log = os.open(how["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    status = 1
    try:
        serve(how)
        status = 0
    except ConfigurationError as error:  # the database may be away
        print(error, file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    """Fork for each line, until there are no more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the dead
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _be_born(json.loads(line))
        print(pid, flush=True)


if __name__ == "__main__":
    main()
