"""What Ray still holds, asked by a driver of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PROGRAM = """
import sys
import ray
from ray.util.placement_group import placement_group_table
ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
groups = [r["name"] for r in placement_group_table().values() if r["state"] != "REMOVED"]
print("census", int(ray.available_resources().get("CPU", 0)))
print("census", *("-" + name for name in groups))
print("census", *(actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)))
"""


@dataclass(frozen=True)
class Census:
    """Free cores, the names of placement groups (a dash before each), those of actors."""

    free_cpus: int
    groups: list[str]
    actors: list[str]


def take(address: str, environment: Mapping[str, str] | None = None) -> Census:
    """The census of the Ray at this address."""
    told = subprocess.run(
        [sys.executable, "-c", _PROGRAM, address],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    lines = [line.split() for line in told.stdout.splitlines() if line.startswith("census")]
    cpus, groups, actors = (words[1:] for words in lines)
    return Census(int(cpus[0]), [name.removeprefix("-") for name in groups], actors)
