"""A figure of the paper as a job: real uvicorn, real Ray, a pause and a kill on its way."""

import json
import os
import signal
from pathlib import Path

import torch
from PIL import Image

from tests.e2e.conftest import Start
from tests.e2e.processes import pid_of_attempt, wait_for, wait_until
from workers.paper.base import Asked
from workers.paper.mle_existence import MLE_EXISTENCE
from workers.paper.results import csv_of, rows_in


def test_a_figure_that_is_paused_and_killed_on_its_way_is_whole_in_the_end(
    start: Start, tmp_path: Path
) -> None:
    """Its seven parts take a second each."""
    client = start().client
    job = client.submit({"trainer": {"kind": "paper", "figure": "mle-existence"}})
    wait_for(job, lambda job: bool(job.checkpoints()), "the first part")
    job.pause()
    wait_until(lambda: job.refresh().state == "paused", 60, "the job to be paused")
    done = job.checkpoints()[-1].step
    assert done < 7
    job.resume()
    wait_for(job, lambda job: job.checkpoints()[-1].step > done, "another part")
    os.kill(pid_of_attempt(job), signal.SIGKILL)
    job.wait(240)

    paused, lost, last = job.body.attempts
    assert (paused.reason, lost.reason, last.reason) == ("paused", "worker_lost", "completed")
    assert lost.resumed_from_step == done
    assert last.resumed_from_step is not None
    assert last.resumed_from_step > done
    assert job.body.message.startswith("Appendix F.1: 3 of 3 claims hold.")
    assert [checkpoint.step for checkpoint in job.checkpoints()] == [*range(1, 8)]

    picture, table, numbers = job.figure.download(tmp_path / "figure")
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert min(image.size) > 200
    verdicts = json.loads(numbers.read_text())["verdicts"]
    assert [verdict["holds"] for verdict in verdicts] == [True] * 3
    # The first part and the last, computed here: to the last digit.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    first, *_, latest = MLE_EXISTENCE.parts(Asked())
    rows = [row for part in (first, latest) for row in part.compute() if isinstance(row, dict)]
    torch.set_num_threads(before)
    found = rows_in(table.read_text())
    assert csv_of([*found[:46], *found[-len(rows) + 46 :]]) == csv_of(rows)
