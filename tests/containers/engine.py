"""buildah, podman and podman-compose, as far as the proof of the stack needs them."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What podman runs as the first process of a container (init: true).
INIT = ("/usr/libexec/podman/catatonit", "/usr/bin/catatonit", "/usr/lib/podman/catatonit")
PULL_TIMEOUT_S = 600
ASK_AGAIN_S = 0.5


def missing() -> list[str]:
    """The tools that this machine lacks, each with what has it."""
    tools = [name for name in ("buildah", "podman") if shutil.which(name) is None]
    if not any(Path(path).exists() for path in INIT):
        tools.append("catatonit")
    if importlib.util.find_spec("podman_compose") is None:
        tools.append("podman-compose (pip install podman-compose)")
    return tools


def run(*command: str, environment: Mapping[str, str] | None = None) -> None:
    """Run a command in the repository; what it says goes where ours does."""
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, **(environment or {})})


def told(*command: str) -> str:
    """What a command says; empty where it fails."""
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def can_pull(image: str) -> bool:
    """Whether an image is here, or can be fetched."""
    if subprocess.run(["podman", "image", "exists", image], check=False).returncode == 0:
        return True
    pull = ["podman", "pull", "--quiet", image]
    try:
        done = subprocess.run(pull, check=False, capture_output=True, timeout=PULL_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def build(tag: str, file: str, arguments: Mapping[str, str], options: Sequence[str]) -> None:
    """Build an image; ``options`` are further ones for buildah."""
    pairs = [f"--build-arg={name}={value}" for name, value in arguments.items()]
    # Health checks are of Docker's format alone.
    run(
        "buildah",
        "bud",
        "--format=docker",
        "--layers",
        *pairs,
        *options,
        f"--file={file}",
        f"--tag={tag}",
        ".",
    )


class Stack:
    """The compose stack under a project's name, with the secrets of one file."""

    def __init__(self, project: str, secrets: Path) -> None:
        self._project = project
        self._compose = [
            *(sys.executable, "-m", "podman_compose", f"--project-name={project}"),
            *(f"--env-file={secrets}", f"--file={ROOT / 'docker-compose.yml'}"),
        ]

    def compose(self, *words: str) -> int:
        """The exit status of a command of podman-compose."""
        return subprocess.run([*self._compose, *words], cwd=ROOT, check=False).returncode

    def name(self, service: str) -> str:
        """The first container of a service."""
        return f"{self._project}_{service}_1"

    def state(self, service: str) -> str:
        """running, exited, …; empty where there is no such container."""
        return told("podman", "inspect", "--format={{.State.Status}}", self.name(service))

    def exit_status(self, service: str) -> int:
        """Of a container that has ended."""
        return int(told("podman", "inspect", "--format={{.State.ExitCode}}", self.name(service)))

    def log(self, service: str) -> str:
        """What a container has said, on both of its streams."""
        done = subprocess.run(
            ["podman", "logs", self.name(service)], check=False, capture_output=True, text=True
        )
        return done.stdout + done.stderr

    def is_healthy(self, service: str) -> bool:
        """Run its health check: where there is no systemd, podman does not."""
        done = subprocess.run(
            ["podman", "healthcheck", "run", self.name(service)], check=False, capture_output=True
        )
        return done.returncode == 0

    def published(self) -> dict[str, list[str]]:
        """Addresses on this machine, by service."""
        rows = json.loads(
            told(
                "podman",
                "ps",
                f"--filter=label=io.podman.compose.project={self._project}",
                "--format=json",
            )
        )
        return {
            row["Labels"]["com.docker.compose.service"]: [
                f"{port['host_ip'] or '0.0.0.0'}:{port['host_port']}" for port in row["Ports"] or ()
            ]
            for row in rows
        }

    def kill(self, service: str) -> None:
        """End all of a container's processes as a crash does, and see that it runs again."""
        pid = self._pid(service)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: self._pid(service) != pid, 60, f"the end of {service}")
        give_up_at = time.monotonic() + 15  # for podman's own restart
        while time.monotonic() < give_up_at and self.state(service) != "running":
            time.sleep(ASK_AGAIN_S)
        if self.state(service) != "running":
            run("podman", "start", self.name(service))

    def _pid(self, service: str) -> int:
        return int(told("podman", "inspect", "--format={{.State.Pid}}", self.name(service)) or 0)


def wait_for(look: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Ask until it is so."""
    give_up_at = time.monotonic() + timeout_s
    while not look():
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"waited {timeout_s:.0f} s in vain for {what}")
        time.sleep(ASK_AGAIN_S)
