"""Logs are followed over the death of the service that serves them."""

import subprocess
import sys

from tests.e2e.conftest import Start
from tests.e2e.processes import ROOT, spec, wait_for


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "api.cli", "logs", *words]


def test_a_log_is_followed_over_a_killed_service_without_loss_or_repetition(start: Start) -> None:
    service = start()
    body = dict(spec(80))
    trainer = body["trainer"]
    assert isinstance(trainer, dict)
    body["trainer"] = {**trainer, "evaluate_every_epochs": 1}
    job = service.client.submit(body)
    follow = subprocess.Popen(
        command(job.id, "--follow", "--url", service.url),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for(job, lambda job: len(job.checkpoints()) >= 3, "three checkpoints")
        service.kill()
        again = start(port=service.port)
        done = again.client.job(job.id).wait(240)
        followed, _ = follow.communicate(timeout=240)
    finally:
        follow.kill()
        follow.wait()
    assert follow.returncode == 0
    assert [attempt.reason for attempt in done.body.attempts] == ["interrupted", "completed"]
    whole = subprocess.run(
        command(job.id, "--url", again.url),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert followed == whole
    lines = whole.splitlines()
    begins = [number for number, line in enumerate(lines) if f"{job.id} attempt " in line]
    assert len(begins) == 2
    resumed = next(number for number, line in enumerate(lines) if "resumed from" in line)
    assert resumed > begins[1]
    for part in (lines[: begins[1]], lines[begins[1] :]):
        evaluated = [line.split() for line in part if " info     epoch " in line]
        epochs = [int(words[words.index("epoch") + 1]) for words in evaluated]
        assert epochs == list(range(epochs[0], epochs[0] + len(epochs)))
    assert lines[-1].endswith("ended: completed: Trained for 80 epochs.")
    assert next(iter(done.logs(tail=1))).text in lines[-1]
