"""What is forked is as what is executed: its environment, its output, its end."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import wait_until
from tests.nursery import Nursery


def begin(how: dict[str, Any]) -> None:
    """In what is forked."""
    sys.stdout.write(f"{os.environ['WORD']} {sorted(os.environ)}\n")
    if how["status"] is not None:
        sys.exit(how["status"])
    sys.stdout.flush()
    signal.pause()


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery("tests.test_nursery")
    yield nursery
    nursery.close()


def test_what_is_forked_has_its_variables_its_log_and_its_exit_status(
    nursery: Nursery, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    for status in (0, 3):
        assert nursery.bear(log, {"WORD": "mine"}, {"status": status}).wait() == status
    assert log.read_text() == "before\n" + 2 * "mine ['WORD']\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_it_and_is_its_status(
    nursery: Nursery, tmp_path: Path, number: signal.Signals
) -> None:
    log = tmp_path / "log"
    forked = nursery.bear(log, {"WORD": "mine"}, {"status": None})
    wait_until(lambda: log.exists() and log.read_text(), 240, "its word")
    assert forked.poll() is None
    forked.send_signal(number)
    assert forked.wait() == -number
    forked.kill()  # nobody else
    assert forked.poll() == -number
