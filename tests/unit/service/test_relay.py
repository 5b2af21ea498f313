"""Events that another service has stored wake those who follow here."""

import asyncio
from pathlib import Path

from service.feed import Feed
from service.jobs import JobState, Reason
from service.jobstore import JobStore
from service.relay import Relay
from tests.contract.jobstore.making import metrics, queued, running


def test_a_follower_is_woken_of_what_another_service_has_stored(
    jobs: JobStore, tmp_path: Path
) -> None:
    async def follow() -> list[str]:
        feed = Feed()
        relay = Relay(jobs, feed)
        other, job = queued(jobs), running(jobs)
        said: list[str] = []
        with feed.follow(job.id) as follower:
            relay.look()  # it cannot know what the follower has read, so it wakes it once
            said.append(await follower.wait(5))
            relay.look()
            said.append(await follower.wait(0.01))
            jobs.ingest(job.id, 1, 0, [metrics(1, loss_nats=1.0)])
            relay.look()
            said.append(await follower.wait(5))
            jobs.settle(jobs.get(job.id), JobState.SUCCEEDED, Reason.COMPLETED, "done")
            relay.look()
            said.append(await follower.wait(5))
            jobs.request_cancel(other.id)
            relay.look()
            said.append(await follower.wait(0.01))
            jobs.delete(job.id)
            relay.look()
            said.append(await follower.wait(5))
        return said

    assert asyncio.run(follow()) == [
        *("urgent", "timeout", "ordinary", "urgent", "timeout", "urgent")
    ]
