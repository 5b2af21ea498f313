"""Users who submit trivial jobs to whichever service answers, and write down what was promised."""

import itertools
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from api.client import ApiError, Client, ClientError

Answer = TypeVar("Answer")
ASK_S = 5.0
OPEN_JOBS = 6  # submitted and not ended
CANCEL_ONE_IN = 6
AGAIN_S = 0.1
SPEC: Mapping[str, Any] = {
    "dataset": {"kind": "ring", "samples": 200},
    "trainer": {
        "kind": "delta_vae",
        "network": {"kind": "mlp", "hidden": [8], "latent_dim": 2},
        "epochs": 150,
        "grid_every_epochs": 100_000,
    },
    "checkpoint_every_epochs": 30,
}


@dataclass
class Promises:
    """What the services have acknowledged: jobs by idempotency key, and cancels."""

    jobs: dict[str, str] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)


class Customers:
    """One thread that submits, and cancels now and then, from ``start`` to ``stop``."""

    def __init__(self, urls: Sequence[str], engine: Engine, seed: int) -> None:
        self.promises = Promises()
        self._clients = [Client(url, timeout_s=ASK_S) for url in urls]
        self._engine = engine
        self._chance = random.Random(seed)
        self._seed = seed
        self._stopping = threading.Event()
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._working: Future[None] | None = None

    def start(self) -> None:
        self._working = self._thread.submit(self._work)

    def stop(self) -> Promises:
        """End; the last submission is acknowledged by then."""
        self._stopping.set()
        self._thread.shutdown()
        for client in self._clients:
            client.close()
        if self._working is not None:
            self._working.result()  # raises its defect
        return self.promises

    def _work(self) -> None:
        for number in itertools.count():
            if self._stopping.wait(AGAIN_S):
                return
            if self._open_jobs() < OPEN_JOBS:
                self._submit(f"{self._seed}-{number}")

    def _open_jobs(self) -> int:
        """Asked of the database past all cables; nobody submits while it is away."""
        try:
            with self._engine.connect() as connection:
                found = connection.exec_driver_sql(
                    "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')"
                )
                return int(found.scalar_one())
        except SQLAlchemyError:
            return OPEN_JOBS

    def _submit(self, key: str) -> None:
        job = self._asked(lambda client: client.submit(SPEC, idempotency_key=key))
        self.promises.jobs[key] = job.id
        if self._chance.randrange(CANCEL_ONE_IN) == 0:
            time.sleep(self._chance.uniform(0, 2))
            if self._asked(lambda client: _cancel(client, job.id)):
                self.promises.cancelled.add(job.id)

    def _asked(self, ask: Callable[[Client], Answer]) -> Answer:
        """What some service answers; the others are asked when one does not."""
        while True:
            try:
                return ask(self._chance.choice(self._clients))
            except ClientError as error:
                if isinstance(error, ApiError) and not error.problem.retryable:
                    raise
                time.sleep(AGAIN_S)


def _cancel(client: Client, job_id: str) -> bool:
    """Whether a cancel was taken; a job that has ended takes none."""
    try:
        client.job(job_id).cancel()
    except ApiError as error:
        if error.problem.status == 409:
            return False
        raise
    return True
