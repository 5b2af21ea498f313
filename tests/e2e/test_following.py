"""A job's events and its log are followed over the deaths of the service that serves them."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import httpx2

from api.client import Client, Event
from tests.e2e.conftest import Start
from tests.e2e.processes import ROOT, ServiceProcess, wait_for, wait_until

ENOUGH = 1000
WAITING = "waiting for the service\n"
RESTARTS = (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGKILL)
PAUSE_S = 0.2  # of a client between two connections
PATIENCE_S = 500.0  # for all restarts

SPEC = {
    "dataset": {"kind": "ring", "samples": 500},
    "trainer": {
        "kind": "delta_vae",
        "network": {"kind": "mlp", "hidden": [8], "latent_dim": 2},
        "epochs": 100_000,
        "batch_size": 100,
        "evaluate_every_epochs": 1,
        "grid_every_epochs": 100_000,
    },
    "checkpoint_every_epochs": 20,
}


def is_evaluation(event: Mapping[str, Any], attempt: int) -> bool:
    """Of an epoch of the attempt; what comes every second in between has no held-out loss."""
    told = event["attempt"] == attempt and event["kind"] == "metrics"
    return told and "held_out_loss_nats" in event["data"]["values"]


@dataclass
class Browser:
    """Follows as a browser does: by the number of the last event in Last-Event-ID."""

    url: str
    job_id: str
    seen: list[Mapping[str, Any]] = field(default_factory=list)
    end: Mapping[str, Any] | None = None
    connections: int = 0
    broken: int = 0

    def follow(self) -> None:
        give_up_at = time.monotonic() + PATIENCE_S
        while self.end is None and time.monotonic() < give_up_at:
            try:
                self._connect()
            except httpx2.TransportError:
                time.sleep(PAUSE_S)

    def _connect(self) -> None:
        last = {"Last-Event-ID": str(self.seen[-1]["seq"])} if self.seen else {}
        path = f"/v1/jobs/{self.job_id}/events"
        with (
            httpx2.Client(base_url=self.url, timeout=30) as http,
            http.sse(path, headers=last) as source,
        ):
            assert source.response.status_code == 200
            self.connections += 1
            try:
                for sent in source:
                    self._take(sent)
            finally:
                self.broken += self.end is None

    def has(self, count: int, attempt: int) -> bool:
        """So many events, some evaluations of the attempt among them, and an open connection."""
        spoken = sum(is_evaluation(event, attempt) for event in self.seen)
        return len(self.seen) >= count and spoken > 1 and self.connections > self.broken

    def _take(self, sent: httpx2.ServerSentEvent) -> None:
        assert sent.event != "gap"
        body: Any = sent.json() if sent.data else None
        if sent.event == "end":
            self.end = body
        elif body is not None and sent.event != "progress":
            assert sent.id == str(body["seq"])
            self.seen.append(body)


@dataclass
class Watcher:
    """Follows with the Python client, which connects again by itself."""

    url: str
    job_id: str
    seen: list[Event] = field(default_factory=list)

    def follow(self) -> None:
        with Client(self.url) as client:
            self.seen.extend(client.job(self.job_id).watch(PATIENCE_S))


def stored(service: ServiceProcess, job_id: str) -> Iterator[Mapping[str, Any]]:
    """All events of the job, page by page, as the database has them."""
    after = 0
    with httpx2.Client(base_url=service.url, timeout=60) as http:
        while True:
            page = http.get(f"/v1/jobs/{job_id}/events?after={after}&limit=1000").json()
            if not page["events"]:
                return
            yield from page["events"]
            after = page["next_after"]


def commanded(*words: str, said: IO[str] | int = subprocess.PIPE) -> subprocess.Popen[str]:
    """A command at a terminal, and where it speaks."""
    return subprocess.Popen(
        [sys.executable, "-m", "api.cli", *words],
        cwd=ROOT,
        stdout=said,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_of_a_thousand_events_over_five_restarts_none_is_missed_and_none_comes_twice(
    start: Start, tmp_path: Path
) -> None:
    service = start()
    job = service.client.submit(SPEC)
    browser, watcher = Browser(service.url, job.id), Watcher(service.url, job.id)
    threads = [threading.Thread(target=one.follow) for one in (browser, watcher)]
    for thread in threads:
        thread.start()
    terminal = commanded("watch", job.id, "--url", service.url)
    log = tmp_path / "followed"
    with log.open("w") as said_of_it:
        follow = commanded("logs", job.id, "--follow", "--url", service.url, said=said_of_it)
    try:
        wait_until(log.read_text, 240, "the log's first line")  # its first question has no patience
        for number, how in enumerate(RESTARTS, 1):
            due = number * ENOUGH // (len(RESTARTS) + 1)
            wait_until(partial(browser.has, due, number), 240, f"{due} events, as they come")
            service.stop(how)
            service = start(port=service.port)
        last = len(RESTARTS) + 1
        wait_until(partial(browser.has, ENOUGH, last), 240, f"{ENOUGH} events")
        wait_for(
            service.client.job(job.id).cancel(), lambda now: now.state == "cancelled", "the end"
        )
        for thread in threads:
            thread.join(60)
        said, _ = terminal.communicate(timeout=240)
        follow.wait(240)
    finally:
        for process in (terminal, follow):
            process.kill()
            process.wait()
    assert not any(thread.is_alive() for thread in threads)

    whole = list(stored(service, job.id))
    assert len(whole) >= ENOUGH
    assert [event["seq"] for event in whole] == list(range(1, len(whole) + 1))
    assert browser.seen == whole
    assert browser.broken >= len(RESTARTS)  # each time without an ``end``, which comes once
    assert browser.end is not None
    assert browser.end["state"] == "cancelled"

    kept = [event for event in watcher.seen if event.seq is not None]
    assert [(event.seq, event.kind, event.data) for event in kept] == [
        (event["seq"], event["kind"], event["data"]) for event in whole
    ]
    assert [event.kind for event in watcher.seen if event.kind in ("end", "gap")] == ["end"]
    assert terminal.returncode == 1  # for a job that was cancelled, and not before
    assert "cancelled" in said.splitlines()[-1]

    attempts = service.client.job(job.id).body.attempts
    assert [attempt.reason for attempt in attempts] == [
        "service_stopped" if how is signal.SIGTERM else "interrupted" for how in RESTARTS
    ] + ["cancelled"]
    for attempt in attempts:  # what each process said, it said without a hole
        steps = [event["data"]["step"] for event in whole if is_evaluation(event, attempt.number)]
        assert len(steps) > 1
        assert len({after - before for before, after in pairwise(steps)}) == 1

    # The log that was followed is the whole one: each attempt's beginning, and its epochs.
    lines = log.read_text().splitlines(keepends=True)
    assert WAITING in lines  # said beside the log, on standard error
    followed = "".join(line for line in lines if line != WAITING)
    assert follow.returncode == 0, followed[-1000:]
    whole_log, _ = commanded("logs", job.id, "--url", service.url).communicate(timeout=240)
    assert followed == whole_log
    lines = whole_log.splitlines()
    begins = [number for number, line in enumerate(lines) if f"{job.id} attempt " in line]
    assert len(begins) == len(attempts)
    parts = [lines[begin:end] for begin, end in pairwise([*begins, len(lines)])]
    for part, attempt in zip(parts, attempts, strict=True):
        assert any("resumed from" in line for line in part) == (attempt.number > 1)
        evaluated = [line.split() for line in part if " info     epoch " in line]
        epochs = [int(words[words.index("epoch") + 1]) for words in evaluated]
        assert len(epochs) > 1
        assert epochs == list(range(epochs[0], epochs[0] + len(epochs)))
    assert "ended: cancelled" in lines[-1]
    assert next(iter(service.client.job(job.id).logs(tail=1))).text in lines[-1]
