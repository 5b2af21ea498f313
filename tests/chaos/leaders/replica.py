"""One of the services, in a process of its own that was forked (``tests.nursery``)."""

import contextlib
import logging
import sys
from pathlib import Path
from typing import Any

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


def begin(how: dict[str, Any]) -> None:
    """What a process of ``tests.nursery`` does."""
    try:
        serve(how)
    except ConfigurationError as error:  # the database may be away
        sys.exit(str(error))
