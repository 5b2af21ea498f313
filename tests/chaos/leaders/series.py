"""A series of strikes on one installation under load, and what the judge says at its end."""

import math
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.leaders.customers import Customers
from tests.chaos.leaders.installation import PATIENCE_S, Installation
from tests.chaos.leaders.judge import Verdict, judge
from tests.chaos.leaders.strikes import Action, Strike, Victim, strike
from tests.e2e.processes import wait_until


@dataclass(frozen=True, slots=True)
class Found:
    """What a series did."""

    strikes: tuple[Strike, ...]
    verdict: Verdict


def run(
    site: Installation,
    work: Sequence[tuple[Victim, Action]],
    seed: int,
    lasts_s: float = math.inf,
) -> Found:
    """Strike after strike while users submit jobs; then let all of these end, and judge. After
    ``lasts_s`` no strike begins any more."""
    began = time.monotonic()
    chance = random.Random(seed)
    customers = Customers([each.url for each in site.replicas], site.engine, seed)
    customers.start()
    strikes = []
    try:
        for victim, action in work:
            if time.monotonic() - began > lasts_s:
                break
            strikes.append(strike(site, victim, action, chance))
            print(strikes[-1])
            sys.stdout.flush()
        site.wait_for_all()
    finally:
        promises = customers.stop()
    wait_until(lambda: _open_jobs(site) == 0, PATIENCE_S, "all jobs to end")
    verdict = judge(site.engine, site.store(), promises)
    for sentence in verdict.sentences():
        print(f"    FAULT {sentence}")
    return Found(tuple(strikes), verdict)


def _open_jobs(site: Installation) -> int:
    site.repair()
    with site.engine.connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')"
        )
        return int(found.scalar_one())
