"""Strikes on the leader or on the database, and how long it takes until somebody leads again."""

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from tests.chaos.leaders import audit
from tests.chaos.leaders.installation import LEASE_S, PATIENCE_S, Installation
from tests.e2e.processes import wait_until

Victim = Literal["leader", "database"]
Action = Literal["kill", "stop", "cut"]

# Of stops and cuts every other one is over before the lease is, and nobody need take over.
SHORT_S, LONG_S = 1.0, LEASE_S + 4.0


@dataclass(frozen=True, slots=True)
class Strike:
    """What one strike did: how long until another leads (None where nobody had to take over), and
    until a leader wrote something again, in seconds from the strike."""

    victim: Victim
    action: Action
    lasted_s: float
    takeover_s: float | None
    at_work_s: float


def strike(site: Installation, victim: Victim, action: Action, chance: random.Random) -> Strike:
    """Strike once, at a random moment, and wait until somebody leads and works again."""
    leader = site.leader()
    site.wait_for_another(leader)
    leader = site.leader()
    time.sleep(chance.uniform(0, 1.5))
    lasts_s = 0.0 if action == "kill" else chance.choice([SHORT_S, LONG_S])
    before = audit.lease(site.engine).number
    struck_at = time.time()
    hit, mend = _means(site, victim, action)
    hit()
    if victim == "leader":
        # Another takes over while this one is stopped.
        if action == "kill" or lasts_s > LEASE_S:
            _wait_for_lease(site, before)
        time.sleep(max(struck_at + lasts_s - time.time(), 0))
        mend()
    else:
        time.sleep(lasts_s)
        mend()
        site.wait_for_database()
    site.repair()
    at_work_s = _wait_for_work(site, struck_at)
    taken = [lease for lease in audit.leases(site.engine) if lease.number > before]
    takeover_s = taken[0].at - struck_at if taken else None
    return Strike(victim, action, lasts_s, takeover_s, at_work_s)


def _means(
    site: Installation, victim: Victim, action: Action
) -> tuple[Callable[[], None], Callable[[], None]]:
    """How to strike, and how to mend what was struck."""
    leader = site.leader()
    match victim, action:
        case "leader", "kill":
            return lambda: leader.signal(signal.SIGKILL), site.repair
        case "leader", "stop":
            return (
                lambda: leader.signal(signal.SIGSTOP),
                lambda: leader.signal(signal.SIGCONT),
            )
        case "leader", _:
            return leader.relay.cut, leader.relay.mend
        case _, "kill":
            return site.database.kill, site.database.start
        case _, "stop":
            return (
                lambda: _send(site.database.pids(), signal.SIGSTOP),
                lambda: _send(site.database.pids(), signal.SIGCONT),
            )
        case _:
            return site.cut_all, site.mend_all


def _send(pids: frozenset[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _wait_for_lease(site: Installation, before: int) -> None:
    wait_until(lambda: audit.lease(site.engine).number > before, PATIENCE_S, "another leader")


def _wait_for_work(site: Installation, struck_at: float) -> float:
    """Seconds from the strike to the first write that only a leader makes, by the last lease."""

    def look() -> float:
        number = audit.lease(site.engine).number
        found = [
            write
            for write in audit.writes(site.engine, struck_at)
            # What was under way when it was struck, is no work after it.
            if write.number == number and write.at > struck_at + 0.05
        ]
        return found[0].at - struck_at if found else 0.0

    def patiently() -> float:
        site.repair()
        return look()

    return wait_until(patiently, PATIENCE_S, "a leader's next write")
