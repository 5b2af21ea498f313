import subprocess
import sys
import time
from pathlib import Path

from service.cluster.processes import is_running
from service.cluster.reap import end_holders, holders, start_guard


def hold(folder: Path) -> subprocess.Popen[bytes]:
    """A process with a log file open in the folder, in a session of its own."""
    program = (
        "import sys, time; file = open(sys.argv[1], 'w'); print('open', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder / "log")],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"open\n"
    process.stdout.close()
    return process


def test_processes_are_found_by_the_files_that_they_hold(tmp_path: Path) -> None:
    process = hold(tmp_path)
    assert [found.pid for found in holders(tmp_path)] == [process.pid]
    assert holders(tmp_path / "elsewhere") == []
    assert end_holders(tmp_path) == 1
    assert process.wait() == -9


def test_the_guard_ends_what_is_left_when_the_service_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "ray"
    folder.mkdir()
    program = (
        "import sys, time, pathlib; from service.cluster.reap import start_guard;"
        "guard = start_guard(pathlib.Path(sys.argv[1]), 1); print(guard.pid, flush=True);"
        "time.sleep(60)"
    )
    service = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    assert service.stdout is not None
    guard = int(service.stdout.readline())
    service.stdout.close()
    orphan = hold(folder)
    service.kill()
    service.wait()
    assert orphan.wait(timeout=20) == -9
    give_up_at = time.monotonic() + 20
    while is_running(guard) or folder.exists():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def test_the_guard_spares_a_service_that_only_left_its_ray(tmp_path: Path) -> None:
    folder = tmp_path / "ray"
    folder.mkdir()
    with (folder / "driver.log").open("w"):  # as Ray leaves one open in this process
        guard = start_guard(folder, spare=1)
        orphan = hold(folder)
        assert guard.stdin is not None
        guard.stdin.close()
        assert guard.wait(timeout=20) == 0
    assert orphan.wait(timeout=20) == -9
    assert not folder.exists()
