"""Deleting and sweeping with real processes that are killed in the middle."""

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from api.client import ApiError
from tests.e2e.conftest import Start
from tests.e2e.processes import ROOT, spec, wait_until
from workers.artifacts import LocalStore

MANY = 20_000

# Writes as an attempt does, and stops in the middle: once before the content has its key, once
# while a checkpoint is being put together.
WRITER = """
import os, sys, threading, time
from pathlib import Path
from workers.artifacts import LocalStore

store = LocalStore(Path(sys.argv[1]))

def hang(*_):
    os.write(1, b"writing\\n")  # in one piece: two threads say so
    time.sleep(600)

def stage():
    with store.staging() as folder:
        (folder / "weights").write_bytes(bytes(1000))
        hang()

threading.Thread(target=stage, daemon=True).start()
os.fsync = hang
store.put("jobs/job-half/attempts/1/files/half.png", bytes(500))
"""


def rows_of(database: Path, job_id: str) -> list[tuple[int | None]]:
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT deleted_us FROM jobs WHERE id = ?", [job_id]).fetchall()
    connection.close()
    return rows


def killed_writer(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        with process.stdout:
            assert [process.stdout.readline() for _ in range(2)] == [b"writing\n"] * 2
    finally:
        process.kill()
        process.wait()


def test_what_a_kill_cuts_off_is_removed_in_the_end(start: Start) -> None:
    service = start(SPREADTRAIN_SWEEP_GRACE_S="1")
    job = service.client.submit(spec(2)).wait(240)
    kept = service.client.submit(spec(1)).wait(240)
    artifacts = service.data_dir / "artifacts"
    files = artifacts / "jobs" / job.id / "attempts" / "1" / "files" / "many"
    files.mkdir(parents=True)
    for number in range(MANY):
        (files / f"{number:06d}").touch()

    job.delete()
    wait_until(lambda: not (files / "000000").exists(), 240, "the first file to go")
    service.kill()
    left = sum(1 for _ in files.iterdir())
    assert 0 < left < MANY
    [(deleted_us,)] = rows_of(service.data_dir / "spreadtrain.db", job.id)
    assert deleted_us is not None

    killed_writer(artifacts)
    store = LocalStore(artifacts)
    names = {
        write.name
        for write in store.unfinished()
        if not write.name.startswith(".incoming-spreadtrain-")
    }
    assert len(names) == 2

    again = start(SPREADTRAIN_SWEEP_GRACE_S="1")
    with pytest.raises(ApiError, match="no job"):
        again.client.job(job.id)
    wait_until(
        lambda: not rows_of(again.data_dir / "spreadtrain.db", job.id), 240, "the rows to go"
    )
    assert not (artifacts / "jobs" / job.id).exists()

    time.sleep(1.1)  # the grace time
    dry = again.client.sweep(dry_run=True)
    assert {finding.name for finding in dry.findings if finding.kind == "unfinished"} >= names
    assert {write.name for write in store.unfinished()} >= names
    assert again.client.sweep().state == "done"
    assert not {write.name for write in store.unfinished()} & names
    assert again.client.job(kept.id).samples(2).shape == (2, 28, 28)
