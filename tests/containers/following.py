"""A job's events over HTTP from outside, through every restart of the service."""

import contextlib
import json
import threading
import time
from typing import Any

import httpx2

RECONNECT_S = 0.5


class Follower(threading.Thread):
    """Follows a job to its end; after a cut it goes on behind the last event that it has seen."""

    def __init__(self, url: str, key: str, job: str) -> None:
        super().__init__(daemon=True)
        self._url = f"{url}/v1/jobs/{job}/events"
        self._headers = {"Authorization": f"Bearer {key}", "Accept": "text/event-stream"}
        self.seen: dict[int, str] = {}
        self.first_at: dict[str, float] = {}
        self.cuts = 0
        self.twice = 0
        self.end: dict[str, Any] | None = None

    def run(self) -> None:
        """Follow; every refusal and every cut is tried again."""
        while self.end is None:
            with contextlib.suppress(httpx2.HTTPError):
                self._follow()
            if self.end is None:
                self.cuts += 1
                time.sleep(RECONNECT_S)

    @property
    def lost(self) -> list[int]:
        """Numbers of events that never came, though later ones did."""
        return sorted(set(range(1, max(self.seen, default=0) + 1)) - set(self.seen))

    def _follow(self) -> None:
        headers = dict(self._headers)
        if self.seen:
            headers["Last-Event-ID"] = str(max(self.seen))
        with httpx2.stream("GET", self._url, headers=headers, timeout=60) as answer:
            answer.raise_for_status()
            fields: dict[str, str] = {}
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if name:
                    fields[name] = value
                    continue
                if "data" in fields:  # and not only a comment that keeps the stream alive
                    number = int(fields.get("id", 0))
                    self._take(fields["event"], number, json.loads(fields["data"]))
                fields = {}

    def _take(self, kind: str, number: int, data: dict[str, Any]) -> None:
        if kind == "end":
            self.end = data
        if number:
            self.twice += number in self.seen
            self.seen[number] = kind
        what = f"artifact {data['data']['name']}" if kind == "artifact" else kind
        self.first_at.setdefault(kind, time.monotonic())
        self.first_at.setdefault(what, time.monotonic())
