import logging
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.factories import tiny_spec
from workers.artifacts import LocalStore, attempt_prefix, log_key, outcome_key
from workers.errors import ClaimLost, StoreError
from workers.events import LogRecord
from workers.logs import AttemptLog, LogLine, decode_chunk, local_log_path, salvage
from workers.logs import shipping as bounds
from workers.logs.local import FILES_KEPT, LocalLog, prune
from workers.logs.shipping import Shipper
from workers.run import Run, StopFlag, execute

PREFIX = attempt_prefix("job-1", 1)
NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return local_log_path(tmp_path, "job-1", 1)


@pytest.fixture
def file(path: Path) -> Iterator[LocalLog]:
    made = LocalLog.create(path)
    yield made
    made.close()


class Away(LocalStore):
    """A store that is away while it is told to be."""

    is_away = True

    def put(self, key: str, content: bytes) -> None:
        if self.is_away:
            raise StoreError("the store is away")
        super().put(key, content)


def kept(store: LocalStore, records: Iterable[LogRecord]) -> list[LogLine]:
    keys = [log_key(PREFIX, record.rank, record.chunk) for record in records]
    return [line for key in keys if store.exists(key) for line in decode_chunk(store.get(key))]


def texts(store: LocalStore, records: Iterable[LogRecord]) -> list[str]:
    return [line.text for line in kept(store, records)]


def until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


# --- shipping -------------------------------------------------------------------------------------


def test_lines_go_into_numbered_chunks_in_their_order(
    artifacts: LocalStore, file: LocalLog
) -> None:
    records: list[LogRecord] = []
    shipper = Shipper(artifacts, PREFIX, 0, file, records.append)
    assert not shipper.ship(NOW, is_last=False)
    file.append(b"one\ntw")
    assert shipper.ship(NOW, is_last=False)
    file.append(b"o\nthree")
    assert shipper.ship(NOW, is_last=False)
    assert not shipper.ship(NOW, is_last=False)
    assert shipper.ship(NOW, is_last=True)
    assert [(record.chunk, record.lines) for record in records] == [(0, 1), (1, 1), (2, 1)]
    assert texts(artifacts, records) == ["one", "two", "three"]
    assert [record.size_bytes for record in records] == [
        artifacts.size(log_key(PREFIX, 0, chunk)) for chunk in range(3)
    ]


def test_a_flood_keeps_its_first_lines_and_its_last_and_says_how_much_is_missing(
    artifacts: LocalStore, file: LocalLog, path: Path
) -> None:
    records: list[LogRecord] = []
    shipper = Shipper(artifacts, PREFIX, 0, file, records.append)
    total = 1_000_000
    with path.open("ab") as writer:
        writer.writelines(b"line %d\n" % number for number in range(total))
    size = file.size()
    assert size > 2 * bounds.BACKLOG_BYTES
    shipper.skip_backlog()
    on_disk = os.fstat(file.descriptor).st_blocks * 512
    assert on_disk <= bounds.CHUNK_BYTES + bounds.CAUGHT_UP_BYTES + 64_000
    while shipper.ship(NOW, is_last=True):
        pass
    lines = kept(artifacts, records)
    [hole] = [line for line in lines if line.level == "gap"]
    before, after = lines[: lines.index(hole)], lines[lines.index(hole) + 1 :]
    assert before[0].text == "line 0"
    assert after[-1].text == f"line {total - 1}"
    first_missing = int(before[-1].text.split()[1]) + 1
    first_after = int(after[0].text.split()[1])
    assert hole.lines == first_after - first_missing
    missing = sum(len(f"line {number}\n") for number in range(first_missing, first_after))
    assert hole.size_bytes == missing
    assert len(before) + hole.lines + len(after) == total


def test_a_long_log_keeps_its_beginning_and_its_end(
    artifacts: LocalStore, file: LocalLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "HEAD_BYTES", 2_000)
    monkeypatch.setattr(bounds, "TAIL_BYTES", 5_000)
    records: list[LogRecord] = []
    shipper = Shipper(artifacts, PREFIX, 0, file, records.append)
    for number in range(100):
        file.append(b"%d " % number + 500 * b"x" + b"\n")
        shipper.ship(NOW, is_last=False)
    found = [int(text.split()[0]) for text in texts(artifacts, records)]
    removed = records[-1].removed
    assert removed is not None
    assert found == [*range(removed[0]), *range(removed[1], 100)]
    assert 0 < removed[0] < removed[1] < 100
    assert sum(stored.size_bytes for stored in artifacts.list(f"{PREFIX}/logs")) <= 7_000


def test_a_store_that_is_away_costs_no_memory_and_loses_only_what_does_not_fit(
    tmp_path: Path, file: LocalLog
) -> None:
    store = Away(tmp_path / "away")
    records: list[LogRecord] = []
    shipper = Shipper(store, PREFIX, 0, file, records.append)
    for number in range(50):
        file.append(b"line %d\n" % number)
        with pytest.raises(StoreError):
            shipper.ship(NOW, is_last=False)
    store.is_away = False
    while shipper.ship(NOW, is_last=True):
        pass
    assert texts(store, records) == [f"line {number}" for number in range(50)]


def test_an_attempt_that_was_given_up_ships_nothing_more(
    artifacts: LocalStore, file: LocalLog
) -> None:
    shipper = Shipper(artifacts, PREFIX, 0, file, lambda record: None)
    file.append(b"late\n")
    artifacts.put(outcome_key(PREFIX), b"{}")
    with pytest.raises(ClaimLost):
        shipper.ship(NOW, is_last=True)
    assert not artifacts.exists(log_key(PREFIX, 0, 0))


# --- salvage --------------------------------------------------------------------------------------


def test_what_a_killed_process_had_not_shipped_is_salvaged_once(
    artifacts: LocalStore, file: LocalLog, path: Path
) -> None:
    announced: list[LogRecord] = []
    shipper = Shipper(artifacts, PREFIX, 0, file, announced.append)
    file.append(b"shipped\n")
    shipper.ship(NOW, is_last=False)
    file.append(b"in the store, but its record was lost\n")
    shipper.ship(NOW, is_last=False)
    file.append(b"only in the file\nnot even a whole line")
    artifacts.put(outcome_key(PREFIX), b"{}")  # it was given up, so nobody else writes
    found = salvage(artifacts, PREFIX, path, announced=1, is_lost=True)
    assert [(record.chunk, record.lines) for record in found] == [(1, 1), (2, 2)]
    assert texts(artifacts, found) == [
        "in the store, but its record was lost",
        "only in the file",
        "not even a whole line",
    ]
    assert salvage(artifacts, PREFIX, path, announced=3, is_lost=True) == []
    again = salvage(artifacts, PREFIX, path, announced=1, is_lost=True)
    assert [record.chunk for record in again] == [1, 2]


def test_a_file_that_is_mostly_given_back_is_salvaged_with_a_gap(
    artifacts: LocalStore, file: LocalLog, path: Path
) -> None:
    shipper = Shipper(artifacts, PREFIX, 0, file, lambda record: None)
    with path.open("ab") as writer:
        writer.writelines(b"line %d\n" % number for number in range(1_000_000))
    shipper.skip_backlog()  # and then it was killed, before it could say so
    found = salvage(artifacts, PREFIX, path, announced=0, is_lost=False)
    lines = kept(artifacts, found)
    [hole] = [line for line in lines if line.level == "gap"]
    assert hole.lines is None  # nobody can count them any more
    assert lines[0].text == "line 0"
    assert lines[-1].text == "line 999999"
    assert "\\x00" not in "".join(line.text for line in lines)


def test_lines_that_were_lost_with_their_machine_leave_a_gap(
    artifacts: LocalStore, file: LocalLog, tmp_path: Path
) -> None:
    shipper = Shipper(artifacts, PREFIX, 0, file, lambda record: None)
    file.append(b"shipped\n")
    shipper.ship(NOW, is_last=False)
    elsewhere = tmp_path / "elsewhere.log"
    assert salvage(artifacts, PREFIX, elsewhere, announced=1, is_lost=False) == []
    [record] = salvage(artifacts, PREFIX, elsewhere, announced=1, is_lost=True)
    [line] = kept(artifacts, [record])
    assert line.level == "gap"
    assert salvage(artifacts, PREFIX, elsewhere, announced=2, is_lost=True) == []


def test_an_unreadable_chunk_does_not_hold_up_the_salvage(
    artifacts: LocalStore, file: LocalLog, path: Path
) -> None:
    artifacts.put(log_key(PREFIX, 0, 0), b"not a chunk")
    file.append(b"rest\n")
    found = salvage(artifacts, PREFIX, path, announced=0, is_lost=False)
    assert [record.lines for record in found] == [0, 1]


# --- local files ----------------------------------------------------------------------------------


def test_leftover_files_are_bounded_in_number_and_those_at_work_stay(tmp_path: Path) -> None:
    alive = LocalLog.create(tmp_path / "alive.log")
    os.utime(alive.path, (0, 0))  # silent for the longest time
    for number in range(FILES_KEPT + 10):
        left = tmp_path / f"{number}.log"
        left.touch()
        os.utime(left, (number + 1, number + 1))
    prune(tmp_path)
    names = {found.name for found in tmp_path.iterdir()}
    assert names == {"alive.log", *(f"{number}.log" for number in range(10, FILES_KEPT + 10))}
    alive.close()


def test_a_closed_file_is_never_written_to_by_its_number(tmp_path: Path) -> None:
    file = LocalLog.create(tmp_path / "log")
    file.close()
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    assert other == file.descriptor
    file.append(b"late")
    assert os.fstat(other).st_size == 0
    os.close(other)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.touch()
    link = local_log_path(tmp_path, "job-1", 1)
    link.parent.mkdir()
    link.symlink_to(target)
    with pytest.raises(OSError, match="symbolic"):
        LocalLog.create(link)
    with pytest.raises(ValueError, match="no job"):
        local_log_path(tmp_path, "../job", 1)


# --- an attempt's log -----------------------------------------------------------------------------


def test_only_the_attempts_own_thread_is_logged_beside_others(
    artifacts: LocalStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("workers"), "propagate", False)
    records: list[LogRecord] = []
    said = AttemptLog(artifacts, PREFIX, path, records.append)
    logger = logging.getLogger("workers.test")
    logger.info("mine, %d", 1)
    logger.info("wrong arguments, %d", "x")
    other = threading.Thread(target=logger.info, args=("another's",))
    other.start()
    other.join()
    logging.getLogger("elsewhere").error("not the workers'")
    said.say("error", "the end")
    said.close()
    said.close()
    said.say("error", "too late")
    logger.info("too late")
    assert texts(artifacts, records) == [
        "workers.test: mine, 1",
        "workers.test: 'wrong arguments, %d'",
        "the end",
    ]
    assert not path.exists()


def test_lines_are_shipped_while_the_attempt_runs(artifacts: LocalStore, path: Path) -> None:
    records: list[LogRecord] = []
    said = AttemptLog(artifacts, PREFIX, path, records.append)
    said.say("info", "at once")
    until(lambda: len(records) == 1)
    assert texts(artifacts, records) == ["at once"]
    said.close()
    assert len(records) == 1


def test_a_store_that_stays_away_delays_the_end_but_little_and_the_file_stays(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.logs.attempt.CLOSE_PATIENCE_S", 0.3)
    store = Away(tmp_path / "away")
    said = AttemptLog(store, PREFIX, path, lambda record: None)
    said.say("info", "kept")
    said.close()
    store.is_away = False
    found = salvage(store, PREFIX, path, announced=0, is_lost=False)
    assert texts(store, found) == ["kept"]


def test_a_folder_that_cannot_be_written_costs_the_log_and_not_the_run(
    artifacts: LocalStore, tmp_path: Path
) -> None:
    blocked = tmp_path / "blocked"
    blocked.touch()
    said = AttemptLog(artifacts, PREFIX, blocked / "x" / "log", lambda record: None)
    said.say("info", "lost")
    said.close()


PROCESS = """
import ctypes, logging, os, subprocess, sys, time, warnings
from pathlib import Path
from workers.artifacts import LocalStore
from workers.logs import AttemptLog

store = LocalStore(Path(sys.argv[1]))
said = AttemptLog(store, sys.argv[2], Path(sys.argv[3]), lambda record: None, whole_process=True)
print("from Python", end=" ")
print("without a flush")
ctypes.CDLL(None).puts(b"from C")
os.write(2, b"from a descriptor\\n")
subprocess.run(["sh", "-c", "echo from a child"])
warnings.warn("from a warning")
logging.getLogger("library").error("from a library")
logging.getLogger("library").info("which nobody wants")
said.say("info", "from us")
{end}
"""


def run_process(artifacts: LocalStore, path: Path, end: str) -> tuple[int, str, list[LogLine]]:
    """The exit status of a process that says much and ends so, its own output, and its log."""
    done = subprocess.run(
        [sys.executable, "-c", PROCESS.format(end=end), str(artifacts.root), PREFIX, str(path)],
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,  # glibc has its last words for a terminal, where there is one
    )
    lines: list[LogLine] = []
    chunk = 0
    salvage(artifacts, PREFIX, path, announced=0, is_lost=False)
    while artifacts.exists(key := log_key(PREFIX, 0, chunk)):
        lines += decode_chunk(artifacts.get(key))
        chunk += 1
    return done.returncode, done.stdout + done.stderr, lines


def test_everything_that_a_process_says_is_kept_and_in_its_order(
    artifacts: LocalStore, path: Path
) -> None:
    status, rest, lines = run_process(artifacts, path, "said.close(); print('afterwards')")
    assert (status, rest) == (0, "afterwards\n")
    found = [(line.level, line.text) for line in lines]
    assert found[:4] == [
        ("output", "from Python without a flush"),
        ("output", "from C"),
        ("output", "from a descriptor"),
        ("output", "from a child"),
    ]
    assert [level for level, _ in found[4:]] == ["warning", "error", "info"]
    assert "UserWarning: from a warning" in found[4][1]
    assert found[5:] == [("error", "library: from a library"), ("info", "from us")]
    assert not path.exists()


@pytest.mark.parametrize(
    ("end", "status", "last_words"),
    [
        ("ctypes.string_at(0)", -11, "Fatal Python error: Segmentation fault"),
        ("os.abort()", -6, "Fatal Python error: Aborted"),
        (
            "c = ctypes.CDLL(None); c.malloc.restype = ctypes.c_void_p;"
            "held = ctypes.c_void_p(c.malloc(5000)); c.free(held); c.free(held)",
            -6,
            "double free",
        ),
        ("os.kill(os.getpid(), 9)", -9, "from us"),
    ],
    ids=["SIGSEGV", "SIGABRT", "glibc", "SIGKILL"],
)
def test_the_last_words_of_a_crash_are_kept(
    artifacts: LocalStore, path: Path, end: str, status: int, last_words: str
) -> None:
    found_status, rest, lines = run_process(artifacts, path, end)
    assert (found_status, rest) == (status, "")
    assert any(last_words in line.text for line in lines)
    assert any(line.text == "from Python without a flush" for line in lines)


def test_a_runaway_child_fills_neither_the_disk_nor_the_store(
    artifacts: LocalStore, path: Path
) -> None:
    """100,000 lines from Python, then what ``yes`` can print in a second, or until its reader has
    begun: ten at most."""
    end = (
        "[print('line', number) for number in range(100_000)]\n"
        "child = subprocess.Popen(['timeout', '10', 'yes'])\n"
        "begun, most = time.monotonic(), 0\n"
        "while child.poll() is None:\n"
        "    found = os.stat(sys.argv[3])\n"
        "    most = max(most, found.st_blocks * 512)\n"
        "    if time.monotonic() - begun > 1 and most < found.st_size:\n"
        "        child.terminate()\n"
        "        child.wait()\n"
        "said.say('info', 'still heard')\n"
        "size = os.stat(sys.argv[3]).st_size\n"
        "said.close()\n"
        "print(most, size)"
    )
    status, rest, lines = run_process(artifacts, path, end)
    assert status == 0, rest
    most, size = (int(word) for word in rest.split())
    stored = sum(found.size_bytes for found in artifacts.list(f"{PREFIX}/logs"))
    assert stored < bounds.HEAD_BYTES + bounds.TAIL_BYTES + (10 << 20)
    assert most < size  # what was read or given up was given back to the disk meanwhile
    assert [line.text for line in lines if line.level == "info"][-1] == "still heard"
    assert any(line.text == "line 0" for line in lines)
    assert any(line.level == "gap" for line in lines)


# --- a run's log ----------------------------------------------------------------------------------


def test_a_run_tells_its_life_in_its_log(artifacts: LocalStore, tmp_path: Path) -> None:
    run = Run(
        job_id="job-1",
        attempt=1,
        spec=tiny_spec(evaluate_every_epochs=1),
        artifacts_uri=artifacts.uri,
        cache_dir=tmp_path,
    )
    with warnings.catch_warnings():
        execute(run, StopFlag())
    lines: list[LogLine] = []
    chunk = 0
    while artifacts.exists(key := log_key(PREFIX, 0, chunk)):
        lines += decode_chunk(artifacts.get(key))
        chunk += 1
    said = [line.text for line in lines]
    assert said[0].startswith("job-1 attempt 1 on ")
    assert f"process {os.getpid()}" in said[0]
    assert said[1].startswith("data loaded: line, 90 to train on and 10 held out")
    assert said[2] == "training begins: 12 steps, 4 an epoch"
    epochs = [text for text in said if text.startswith("epoch ")]
    assert [text.split(":")[0] for text in epochs] == [f"epoch {n} step {4 * n}" for n in (1, 2, 3)]
    assert all("held_out_elbo_nats=" in text for text in epochs)
    assert sum(text.startswith("checkpoint ") for text in said) == 2
    assert said[-1] == "ended: completed: Trained for 3 epochs."
    assert {line.level for line in lines} == {"info"}
    assert list((tmp_path / "attempt-logs").iterdir()) == []
