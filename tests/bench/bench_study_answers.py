"""Answers about a study of 1,000 trials: ``python -m tests.bench.bench_study_answers``.

The bar is 100 ms at the 99th percentile for list, curve and best, over HTTP on SQLite. *first* is
what the first one since the start of the service takes, as nothing is at hand, *anew* the first one
after a change, *again* all others. The floor is one reading of as many trials by the ledger.
"""

import contextlib
import gc
import math
import random
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import insert, update

from api.app import Services, create_app
from api.main import running_services
from service.cluster.inline import InlineCluster
from service.jobs import JobState, Reason
from service.jobstore import JobStore
from service.jobstore.rows import job_row, to_json, to_us
from service.jobstore.schema import JOBS, STUDIES, TRIAL_RESULTS, TRIALS
from service.settings import Settings
from service.studies.ledger import Study
from tests.bench.bench_service import quantile, row, timed
from tests.serving import served
from tests.trials import KIND, NOON, SCALE, ended, job_of, new_study, running_study
from workers.artifacts import LocalStore

TRIALS_STORED, EPOCHS, METRICS, STUDIES_STORED = 1000, 20, 30, 200
ANEW, AGAIN = 100, 400
BAR = "≤ 100 ms"


def fill(jobs: JobStore) -> Study:
    """A study that has succeeded, with all its trials and results, written at one go."""
    study = running_study(
        jobs,
        budget={"trials": TRIALS_STORED},
        scheduler={"kind": "asha", "grace_epochs": 3},
    )
    draw = random.Random(0)
    seeds = study.request.confirmation.seeds
    job_rows: list[dict[str, Any]] = []
    trial_rows: list[dict[str, Any]] = []
    result_rows: list[dict[str, Any]] = []
    for number in range(1, TRIALS_STORED + 1):
        fresh = number - (TRIALS_STORED - 3 * len(seeds))  # the last ones confirm three
        configuration = number - 1 if fresh <= 0 else (fresh - 1) // len(seeds)
        drawn = random.Random(configuration)
        kind, scale = drawn.choice(["gaussian", "laplace"]), 0.05 * 20 ** drawn.random()
        values = {KIND: kind, SCALE: scale}
        seed = 0 if fresh <= 0 else seeds[(fresh - 1) % len(seeds)]
        job = job_of(study, values, seed)
        stopped = fresh <= 0 and number % 3 > 0
        job_rows.append(
            job_row(job)
            | {
                "state": JobState.SUCCEEDED.value,
                "reason": (Reason.STOPPED_BY_STUDY if stopped else Reason.COMPLETED).value,
                "ended_us": to_us(NOON),
            }
        )
        trial_rows.append(
            {
                "study_id": study.id,
                "number": number,
                "configuration": configuration,
                "values": to_json(values),
                "seed": seed,
                "phase": "search" if fresh <= 0 else "confirmation",
                "job_id": job.id,
            }
        )
        kid = math.log(scale / 0.3) ** 2 + 0.1 * draw.random()
        for epoch in range(1, (EPOCHS // 3 if stopped else EPOCHS) + 1):
            others = {f"held_out_metric_{k}_nats": draw.random() for k in range(METRICS - 1)}
            result_rows.append(
                {
                    "study_id": study.id,
                    "seq": len(result_rows) + 1,
                    "trial": number,
                    "epoch": epoch,
                    "metrics": to_json({"kid_pca": kid * EPOCHS / epoch, **others}),
                    "at_us": to_us(NOON),
                }
            )
    with jobs._database.write() as connection:
        connection.execute(insert(JOBS), job_rows)
        connection.execute(insert(TRIALS), trial_rows)
        connection.execute(insert(TRIAL_RESULTS), result_rows)
        counted = {"last_trial": TRIALS_STORED, "last_result": len(result_rows)}
        connection.execute(update(STUDIES).where(STUDIES.c.id == study.id).values(counted))
    return ended(jobs, study)


def tell(name: str, seconds: list[float], floor: float, bar: str = BAR) -> None:
    """One line: the 99th percentile, the floor, and what they are to one another."""
    p99 = quantile(seconds, 0.99)
    ratio = f"{p99 / floor:.2f}"
    row(f"{name}: p99", f"{1e3 * p99:.1f} ms", f"{1e3 * floor:.1f} ms", ratio, bar)


def measure(services: Services, jobs: JobStore, study: Study, url: str) -> None:
    """The table."""
    floor = statistics.median(timed(lambda: jobs.ledger.trials(study.id), 20))
    path = f"{url}/v1/studies/{study.id}"

    kept, computed = services.answers._standings._kept, services.answers._computed

    def forget() -> None:
        kept.clear()
        computed.clear()

    def change() -> None:
        for study_id, standings in kept.items():
            kept[study_id] = replace(standings, stamp=())
        computed.clear()

    with httpx2.Client(timeout=60) as http:

        def get(address: str, **query: Any) -> Callable[[], object]:
            def ask() -> object:
                answer = http.get(address, params=query)
                answer.raise_for_status()
                return answer

            ask()
            return ask

        tell(
            f"list of 50 of {STUDIES_STORED} studies",
            timed(get(f"{url}/v1/studies", limit=50), AGAIN),
            floor,
        )
        tell("page of 50 trials", timed(get(f"{path}/trials"), AGAIN), floor)
        scale = {"parameter": SCALE}
        both = {"parameter": [SCALE, KIND]}
        for name, ask in (
            ("study", get(path)),
            ("best", get(f"{path}/best")),
            ("curve", get(f"{path}/curve", **scale)),
            ("curve for each kind", get(f"{path}/curve", **both)),
            ("curve, PNG", get(f"{path}/curve", **scale, format="png")),
            ("parallel coordinates", get(f"{path}/parallel")),
            ("importance", get(f"{path}/importance")),
        ):
            is_barred = name in ("best", "curve")
            for when, prepare in (("first", forget), ("anew", change)):
                seconds = []
                for _ in range(ANEW):
                    prepare()
                    seconds += timed(ask, 1)
                tell(f"{name}, {when}", seconds, floor, BAR if is_barred else "reported")
            tell(f"{name}, again", timed(ask, AGAIN), floor, BAR if is_barred else "reported")


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = Settings(data_dir=folder)
        jobs = JobStore.open(f"sqlite:///{folder / 'spreadtrain.db'}")
        study = fill(jobs)
        for _ in range(STUDIES_STORED - 1):
            jobs.ledger.request_cancel(jobs.ledger.add(new_study()).id)
        with (
            contextlib.closing(jobs),
            contextlib.closing(InlineCluster()) as cluster,
            running_services(settings, jobs, LocalStore(folder / "artifacts"), cluster) as services,
            served(create_app(services, settings)) as url,
        ):
            row("figure", "measured", "floor", "ratio", "bar")
            gc.collect()
            gc.freeze()  # as the service does, see api.main.answer
            measure(services, jobs, study, url)


if __name__ == "__main__":
    main()
