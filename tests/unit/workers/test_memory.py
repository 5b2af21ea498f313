"""What a process keeps and gives back; in a process of its own, whose allocator is set up so."""

import os
import subprocess
import sys
from pathlib import Path

from service.settings import ALLOCATION

ROOT = Path(__file__).parents[3]

PROGRAM = """
from pathlib import Path
from workers.memory import give_back

def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20

blocks = [bytearray(b"x") * (1 << 20) for _ in range(200)]
pin = bytearray(100)
held = resident_mib()
del blocks
kept = resident_mib()
give_back()
print(held - kept, kept - resident_mib())
"""


def test_memory_is_kept_for_the_next_step_and_given_back_at_the_end() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, **ALLOCATION},
        capture_output=True,
        text=True,
        check=True,
    )
    freed_at_once, given_back = map(int, done.stdout.split())
    assert freed_at_once < 10
    assert given_back > 150


LASTING = """
import gc
from workers.memory import lasting

class Loop:
    def __init__(self):
        self.itself = self

gc.collect()
before = gc.get_freeze_count()
with lasting():
    kept = [Loop() for _ in range(1000)]
    with lasting():
        inner = gc.isenabled()
    outer = gc.isenabled()
frozen = gc.get_freeze_count() - before
tracked = sum(isinstance(each, Loop) for each in gc.get_objects())
Loop()
print(inner, outer, gc.isenabled(), frozen >= 1000, tracked, gc.collect() >= 1)
"""


def test_what_lasts_is_looked_through_no_more_and_what_comes_after_is_collected() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LASTING], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False", "True", "True", "0", "True"]


def test_collections_come_back_with_the_last_of_blocks_in_several_threads() -> None:
    program = """
import gc, threading
from workers.memory import lasting
inner_is_in, outer_is_out = threading.Event(), threading.Event()

def inner():
    with lasting():
        inner_is_in.set()
        outer_is_out.wait(60)

with lasting():
    thread = threading.Thread(target=inner)
    thread.start()
    inner_is_in.wait(60)
between = gc.isenabled()
outer_is_out.set()
thread.join()
print(between, gc.isenabled())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True"]


def test_slow_modules_are_imported_once_and_looked_through_no_more() -> None:
    program = """
import gc
from workers.memory import import_lasting
gc.collect()
counts = [gc.get_freeze_count()]
for _ in range(2):
    import_lasting("xml.etree.ElementTree", "email.message")
    counts.append(gc.get_freeze_count())
import email.message
print(counts[1] > counts[0], counts[2] == counts[1], gc.isenabled())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "True", "True"]
