"""What a new process has imported, and what a spare has paid for before its first attempt."""

import subprocess
import sys

_SCRIPT = """
import sys
import workers.run
from workers.warm_up import warm_up
before = "sklearn" in sys.modules
warm_up()
print(before, "sklearn.decomposition" in sys.modules)
"""


def test_a_spare_has_imported_what_others_leave_until_it_is_needed() -> None:
    command = [sys.executable, "-c", _SCRIPT]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    assert said.stdout.split() == ["False", "True"]
