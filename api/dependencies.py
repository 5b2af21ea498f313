"""What the routes are given: the services behind them."""

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Path, Request
from fastapi.concurrency import run_in_threadpool

from api.broadcast import Broadcast
from service.access.access import Access
from service.access.caller import Caller
from service.catalogue import Catalogue
from service.datasets import Datasets
from service.errors import NotYours
from service.explaining import Explaining
from service.feed import Feed
from service.forking import Forks
from service.health import Health
from service.logs import Logs
from service.measures import Measures
from service.mixing import Mixing
from service.results import Results
from service.retention import Deletions
from service.sampling import Sampling
from service.studies.answers import Answers
from service.studies.presets import Presets
from service.studies.promoting import Promotions
from service.studies.submitting import Studying
from service.sweeper import Sweeper
from service.tracing import OFF, Tracing
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
    access: Access
    measures: Measures = field(default_factory=Measures)
    tracing: Tracing = OFF


async def _services(request: Request) -> Services:
    # async: a plain one would cost a thread for nothing
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


Given = Annotated[Services, Depends(_services)]
StudyId = Annotated[str, Path(description="Id of the study.", examples=["study-5f0c2b9e6f5a4d7c"])]
JobId = Annotated[str, Path(description="Id of the job.", examples=["job-5f0c2b9e6f5a4d7c"])]


async def _asking(request: Request) -> Caller:
    caller = request.state.caller
    assert isinstance(caller, Caller)
    return caller


Asking = Annotated[Caller, Depends(_asking)]
"""Who asks."""


async def _own_job(job_id: JobId, services: Given, caller: Asking) -> str:
    # An owner never changes, so what is looked up here holds for what follows.
    if not caller.may_change_all:
        owner = (await run_in_threadpool(services.training.get, job_id)).owner
        _require_own(caller, owner, "job")
    return job_id


async def _own_study(study_id: StudyId, services: Given, caller: Asking) -> str:
    if not caller.may_change_all:
        owner = (await run_in_threadpool(services.studying.get, study_id)).owner
        _require_own(caller, owner, "study")
    return study_id


def _require_own(caller: Caller, owner: str | None, what: str) -> None:
    if not caller.may_change(owner):
        raise NotYours(
            f"the {what} belongs to {owner or 'nobody'}, and the key to {caller.owner}; only its "
            "owner and an admin may change it"
        )


OwnJobId = Annotated[str, Depends(_own_job)]
"""The id of a job that who asks may change; raises NotYours, JobNotFound."""
OwnStudyId = Annotated[str, Depends(_own_study)]
"""The id of a study that who asks may change; raises NotYours, StudyNotFound."""
