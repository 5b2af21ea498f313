import asyncio
import threading
from contextlib import AbstractContextManager

from service.feed import Feed, Follower


def test_a_follower_is_woken_from_another_thread_and_told_how_urgent() -> None:
    async def follow() -> list[str]:
        feed = Feed()
        with feed.follow("job-1") as follower:
            threading.Thread(target=feed.notify, args=("job-1", False)).start()
            first = await follower.wait(5)
            feed.notify("job-1", urgent=False)
            feed.notify("job-1", urgent=True)
            second = await follower.wait(5)
            return [first, second, await follower.wait(0.01)]

    assert asyncio.run(follow()) == ["ordinary", "urgent", "timeout"]


def test_news_of_another_job_wakes_nobody() -> None:
    async def follow() -> str:
        feed = Feed()
        with feed.follow("job-1") as follower:
            feed.notify("job-2", urgent=True)
            return await follower.wait(0.01)

    assert asyncio.run(follow()) == "timeout"


def test_a_follower_that_leaves_is_forgotten() -> None:
    async def follow() -> tuple[int, int]:
        feed = Feed()
        with feed.follow("job-1"), feed.follow("job-1"):
            during = feed.count()
        return during, feed.count()

    assert asyncio.run(follow()) == (2, 0)


def test_a_follower_of_a_loop_that_is_gone_disturbs_nobody() -> None:
    feed = Feed()

    async def follow() -> AbstractContextManager[Follower]:
        following = feed.follow("job-1")
        following.__enter__()
        return following

    following = asyncio.run(follow())
    feed.notify("job-1", urgent=True)
    assert feed.count() == 1
    following.__exit__(None, None, None)
    assert feed.count() == 0
