"""What the routes are given: the services behind them."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path, Request

from api.broadcast import Broadcast
from service.catalogue import Catalogue
from service.datasets import Datasets
from service.explaining import Explaining
from service.feed import Feed
from service.forking import Forks
from service.health import Health
from service.logs import Logs
from service.mixing import Mixing
from service.results import Results
from service.retention import Deletions
from service.sampling import Sampling
from service.studies.answers import Answers
from service.studies.presets import Presets
from service.studies.promoting import Promotions
from service.studies.submitting import Studying
from service.sweeper import Sweeper
from service.training import Training


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that the routes call."""

    training: Training
    forks: Forks
    results: Results
    logs: Logs
    sampling: Sampling
    mixing: Mixing
    datasets: Datasets
    catalogue: Catalogue
    feed: Feed
    broadcast: Broadcast
    health: Health
    explaining: Explaining
    deletions: Deletions
    sweeper: Sweeper
    studying: Studying
    answers: Answers
    promotions: Promotions
    presets: Presets


async def _services(request: Request) -> Services:
    # async: a plain one would cost a thread for nothing
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


Given = Annotated[Services, Depends(_services)]
StudyId = Annotated[str, Path(description="Id of the study.", examples=["study-5f0c2b9e6f5a4d7c"])]
JobId = Annotated[str, Path(description="Id of the job.", examples=["job-5f0c2b9e6f5a4d7c"])]
