"""The demonstration, shortened to two epochs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
from PIL import Image

from tests.e2e.processes import ROOT


def running_on(folder: Path) -> list[str]:
    """Command lines that name the folder."""
    lines = []
    for process in psutil.process_iter():
        try:
            lines.append(" ".join(process.cmdline()))
        except psutil.NoSuchProcess:
            continue
    return [line for line in lines if str(folder) in line]


def test_the_demonstration_ends_with_pictures_and_nothing_running(tmp_path: Path) -> None:
    output = tmp_path / "out"
    demo = subprocess.run(
        [sys.executable, "-m", "api.cli", "demo", "--output", str(output), "--epochs", "2"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    with Image.open(output / "samples.png") as grid:
        assert grid.size[0] > 8 * 28
    with Image.open(output / "filmstrip.png") as strip:
        assert strip.size[1] > 3 * 28  # two epochs and the data
    assert "curl" in demo.stdout
    assert re.search(r"http://127\.0\.0\.1:\d+/v1/jobs/job-[0-9a-f]+/samples", demo.stdout)
    assert running_on(output) == []
