"""Many followers of event streams, in a process of their own:
``python -m tests.bench.load.followers HOST:PORT COUNT JOB=EVENT…``: each job with the last event
that is known already.

Each is a real connection of its own. The process says ``ready`` when all have had their first
bytes, counts from then on, and at the end of its standard input tells what it has seen as JSON.
"""

import json
import re
import selectors
import socket
import sys
import time
from datetime import datetime
from typing import Any

_ID = re.compile(rb"\nid: (\d+)\n")
_AT = re.compile(rb'"at":"([^"]+)"')
CONNECT_S = 60.0


class Follower:
    """One connection, and what came through it."""

    def __init__(self, address: tuple[str, int], job_id: str, after: int) -> None:
        self.socket = socket.create_connection(address, CONNECT_S)
        self.socket.sendall(
            f"GET /v1/jobs/{job_id}/events?after={after} HTTP/1.1\r\nHost: localhost\r\n"
            "Accept: text/event-stream\r\n\r\n".encode()
        )
        self.rest = b""
        self.last = after
        self.events = self.gaps = 0
        self.delays_s: list[float] = []

    def read(self) -> bool:
        """Take in what has come; False where the stream has ended."""
        data = self.socket.recv(1 << 20)
        if not data:
            return False
        text = self.rest + data
        end = text.rfind(b"\n\n") + 1
        whole, self.rest = text[: end + 1], text[end:]
        numbers = [int(number) for number in _ID.findall(whole)]
        for number in numbers:
            self.gaps += number != self.last + 1
            self.last = number
        self.events += len(numbers)
        if numbers:
            at = _AT.findall(whole)[-1].decode()
            self.delays_s.append(time.time() - datetime.fromisoformat(at).timestamp())
        return True


def main() -> None:
    """Follow until standard input ends."""
    host, _, port = sys.argv[1].partition(":")
    count, jobs = int(sys.argv[2]), [each.split("=") for each in sys.argv[3:]]
    waiting = selectors.DefaultSelector()
    asked = [jobs[number % len(jobs)] for number in range(count)]
    followers = [Follower((host, int(port)), job_id, int(after)) for job_id, after in asked]
    for follower in followers:
        waiting.register(follower.socket, selectors.EVENT_READ, follower)
    waiting.register(sys.stdin, selectors.EVENT_READ, None)
    is_ready, ended = False, 0
    while True:
        for key, _ in waiting.select():
            if key.data is None:
                _tell(followers, ended)
                return
            if not key.data.read():
                waiting.unregister(key.fileobj)
                ended += 1
        if not is_ready and all(follower.events for follower in followers):
            is_ready = True
            for follower in followers:
                follower.events, follower.delays_s = 0, []
            print("ready", flush=True)


def _tell(followers: list[Follower], ended: int) -> None:
    delays = sorted(delay for follower in followers for delay in follower.delays_s)
    told: dict[str, Any] = {
        "events": sum(follower.events for follower in followers),
        "gaps": sum(follower.gaps for follower in followers),
        "ended": ended,
        "delay_p50_s": delays[len(delays) // 2] if delays else None,
        "delay_p99_s": delays[int(len(delays) * 0.99)] if delays else None,
    }
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
