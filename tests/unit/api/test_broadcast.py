import asyncio

import pytest

from api.broadcast import KEPT, Broadcast, Look
from service.errors import JobNotFound, NotReady
from service.feed import Feed
from service.jobs import Job, JobEvent
from tests.unit.api.conftest import Quiet


class Counting(Broadcast):
    """Counts its readings."""

    read = 0

    def _read(self, job_id: str, after: int) -> Look:
        self.read += 1
        return super()._read(job_id, after)


@pytest.fixture
def job_id(quiet: Quiet) -> str:
    return quiet.submit()


@pytest.fixture
def counting(quiet: Quiet) -> Counting:
    return Counting(quiet.app.state.services.results, quiet.feed)


def test_followers_at_one_event_share_one_reading_and_one_text(
    counting: Counting, job_id: str
) -> None:
    async def look() -> list[Look]:
        return await asyncio.gather(*(counting.look(job_id, 0) for _ in range(100)))

    looks = asyncio.run(look())
    assert counting.read == 1
    assert all(each is looks[0] for each in looks)
    assert looks[0].whole.startswith(b"event: state\n")
    assert looks[0].end is None


def test_news_are_read_anew_and_so_is_each_place(
    counting: Counting, quiet: Quiet, job_id: str
) -> None:
    async def look() -> list[int]:
        counts = []
        with quiet.feed.follow(job_id):
            for after in (0, 0, 1):
                await counting.look(job_id, after)
                counts.append(counting.read)
            quiet.feed.notify(job_id, urgent=False)
            await counting.look(job_id, 0)
            counts.append(counting.read)
        with quiet.feed.follow(job_id):  # there may have been news while nobody followed
            await counting.look(job_id, 0)
            counts.append(counting.read)
        return counts

    assert asyncio.run(look()) == [1, 1, 2, 3, 4]


def test_what_nobody_told_of_is_seen_a_little_later(
    counting: Counting, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.broadcast.LASTS_S", 0.0)

    async def look() -> None:
        await counting.look(job_id, 0)
        await counting.look(job_id, 0)

    asyncio.run(look())
    assert counting.read == 2


def test_a_failure_is_of_those_who_waited_and_of_nobody_after_them(
    quiet: Quiet, counting: Counting, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = quiet.app.state.services.results
    tail = results.tail

    def away(*_: object) -> tuple[Job, list[JobEvent]]:
        raise NotReady("the database is locked")

    async def look() -> None:
        monkeypatch.setattr(results, "tail", away)
        waiting = [counting.look(job_id, 0) for _ in range(2)]
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in found] == [NotReady, NotReady]
        monkeypatch.setattr(results, "tail", tail)
        assert (await counting.look(job_id, 0)).events

    asyncio.run(look())
    assert counting.read == 2


def test_a_follower_that_leaves_does_not_end_the_others_look(
    counting: Counting, job_id: str
) -> None:
    async def look() -> Look:
        first, second = (asyncio.create_task(counting.look(job_id, 0)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert asyncio.run(look()).events
    assert counting.read == 1


def test_looks_are_not_kept_without_bound(counting: Counting, job_id: str) -> None:
    async def look() -> None:
        for after in range(3 * KEPT):
            await counting.look(job_id, after)

    asyncio.run(look())
    assert len(counting._shared) <= KEPT


def test_a_job_that_is_not_there_is_none(counting: Counting) -> None:
    with pytest.raises(JobNotFound):
        asyncio.run(counting.look("job-none", 0))


def test_the_mark_of_a_job_that_nobody_follows_is_kept_nowhere() -> None:
    async def marks() -> list[int]:
        feed = Feed()
        feed.notify("job", urgent=False)
        found = [feed.mark("job")]
        with feed.follow("job"):
            found.append(feed.mark("job"))
        return [*found, feed.mark("job")]

    assert asyncio.run(marks()) == [0, 1, 0]
