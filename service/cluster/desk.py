"""Where the proxies of a study's trials wait for results, and the host for the driver's words."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

FAILED = "failed"
"""Key of a configuration's last result: whether it has failed."""


class Desk:
    """Lies between a driver, its proxies and the service; for one event loop."""

    def __init__(self) -> None:
        self._results: defaultdict[int, deque[Mapping[str, Any]]] = defaultdict(deque)
        self._said: list[str] = []
        self._is_over = False
        self._news = asyncio.Event()

    def put(self, configuration: int, result: Mapping[str, Any]) -> None:
        """A result of a configuration, or its end, for whichever proxy has it."""
        self._results[configuration].append(result)
        self._tell()

    async def take(self, configuration: int) -> Mapping[str, Any]:
        """The configuration's next result; waits for it."""
        await self._until(lambda: bool(self._results[configuration]))
        return self._results[configuration].popleft()

    def say(self, line: str) -> None:
        """The driver says something."""
        self._said.append(line)
        self._tell()

    def close(self) -> None:
        """The driver has ended."""
        self._is_over = True
        self._tell()

    async def hear(self, timeout_s: float) -> tuple[Sequence[str], bool]:
        """What the driver has said, and whether it has ended; waits for either, but not for ever.

        Its last words come before its end, or with it.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._until(lambda: bool(self._said) or self._is_over)
        except TimeoutError:
            return [], False
        said, self._said = self._said, []
        return said, self._is_over

    async def _until(self, is_there: Callable[[], bool]) -> None:
        while not is_there():
            await self._news.wait()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
