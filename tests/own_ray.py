"""An own Ray for one file of tests, whose processes do what a test tells them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.cluster.ray_cluster import RayCluster
from service.settings import ray_environment

# Runs what it finds in a folder as <its process id>.py, in whichever Python process that is.
_PUPPET = """
import os, pathlib, threading, time

def listen(order):
    while True:
        time.sleep(0.02)
        if order.exists():
            text = order.read_text()
            order.unlink()
            exec(text)

folder = pathlib.Path({folder!r})
threading.Thread(
    target=lambda: listen(folder / f"{{os.getpid()}}.py"), daemon=True
).start()
"""


@contextmanager
def own_ray(folder: Path, cpus: int, namespace: str) -> Iterator[RayCluster]:
    """A started Ray of so many cores; ``folder`` is empty, and also where orders are left."""
    code = folder / "code"
    code.mkdir()
    (code / "sitecustomize.py").write_text(_PUPPET.format(folder=str(folder)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(code))
        ray_environment(joining=False)
        made = RayCluster("", folder / "ray", cpus, namespace)
        made.start()
        yield made
        made.close()


def tell(folder: Path, pid: int, text: str) -> None:
    """Let a process of the Ray whose folder this is run some Python."""
    part = folder / "part"
    part.write_text(text)
    part.replace(folder / f"{pid}.py")
