"""``make containers``: build the image, run the whole stack, use it from outside, and kill parts.

It prints the seconds of each stage, and exits with 1 at the first thing that is not as it should
be. PYTHON_IMAGE and TORCH_INDEX are the image's build arguments, BUILD_OPTIONS further options for
buildah. Images that cannot be fetched get stand-ins from deploy/standins, said in the output.
"""

import os
import re
import secrets
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx2

from tests.containers.engine import ROOT, Stack, build, can_pull, missing, told, wait_for
from tests.containers.following import Follower
from tests.s3_servers import free_ports

IMAGE = "localhost/spreadtrain:latest"
STAND_INS = ("postgres", "seaweedfs")
EPOCHS = 120
JOB = {
    "name": "from outside",
    "spec": {
        "dataset": {"name": "mnist-10k"},
        "trainer": {"kind": "delta_vae", "epochs": EPOCHS, "grid_every_epochs": 1},
        "checkpoint_every_epochs": 2,
    },
}


class Stages:
    """Prints what has happened, with the seconds since the stage before it."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def reached(self, what: str, at: float | None = None) -> None:
        now = time.monotonic() if at is None else at
        print(f"{now - self._since:8.1f} s  {what}", flush=True)
        self._since = now


def images() -> dict[str, str]:
    """Build what is ours; the images of others, by the variables of docker-compose.yml."""
    options = shlex.split(os.environ.get("BUILD_OPTIONS", ""))
    names = ("PYTHON_IMAGE", "TORCH_INDEX")
    arguments = {name: os.environ[name] for name in names if name in os.environ}
    if "SPREADTRAIN_IMAGE" not in os.environ:
        build(IMAGE, "Dockerfile", arguments, options)
    chosen = {"SPREADTRAIN_IMAGE": os.environ.get("SPREADTRAIN_IMAGE", IMAGE)}
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    for name in STAND_INS:
        variable = f"{name.upper()}_IMAGE"
        found = re.search(rf"\$\{{{variable}:-([^}}]+)\}}", compose)
        assert found is not None
        if variable in os.environ:
            chosen[variable] = os.environ[variable]
        elif not can_pull(found[1]):
            print(f"{found[1]} cannot be fetched: a stand-in takes its place")
            chosen[variable] = f"localhost/spreadtrain-standin/{name}:latest"
            build(chosen[variable], f"deploy/standins/{name}.Dockerfile", arguments, options)
    return chosen


def write_secrets(folder: Path, chosen: dict[str, str]) -> tuple[Path, str]:
    """An environment file with secrets of its own, and the address of the service."""
    example = (ROOT / "deploy" / "compose.env.example").read_text(encoding="utf-8")
    own = re.sub(r"=replace-me.*", lambda _: f"={secrets.token_hex(24)}", example)
    service, s3 = free_ports(2)
    lines = [f"{name}={value}" for name, value in chosen.items()]
    lines += [f"SERVICE_PORT={service}", f"S3_PORT={s3}", "RAY_WORKER_CPUS=1"]
    file = folder / "stack.env"
    file.write_text(own + "\n".join(lines) + "\n", encoding="utf-8")
    file.chmod(0o600)
    return file, f"http://127.0.0.1:{service}"


def refuse_the_example(folder: Path, chosen: dict[str, str]) -> None:
    """With the example's own secrets nothing of ours begins."""
    example = (ROOT / "deploy" / "compose.env.example").read_text(encoding="utf-8")
    file = folder / "example.env"
    file.write_text(example + "".join(f"{k}={v}\n" for k, v in chosen.items()), encoding="utf-8")
    stack = Stack("spreadtrain-example", file)
    try:
        stack.compose("up", "--no-build", "-d", "settings")
        wait_for(lambda: stack.state("settings") == "exited", 120, "the check of the settings")
        assert stack.exit_status("settings") != 0
        assert "example's value" in stack.log("settings")
    finally:
        stack.compose("down", "--volumes")


def main() -> None:
    """Prove it, stage by stage."""
    if lacking := missing():
        sys.exit(f"make containers needs {', '.join(lacking)}; nothing was run")
    stages = Stages()
    chosen = images()
    size = int(
        told("podman", "image", "inspect", "--format={{.Size}}", chosen["SPREADTRAIN_IMAGE"])
    )
    stages.reached(f"the image is built: {size / 1e6:.0f} MB")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        refuse_the_example(folder, chosen)
        stages.reached("the example's secrets were refused")
        file, url = write_secrets(folder, chosen)
        stack = Stack("spreadtrain-proof", file)
        try:
            prove(stack, url, stages)
        except BaseException:
            for service in ("migrations", "ray-head", "ray-worker", "service"):
                print(f"--- {service}\n{stack.log(service)[-3000:]}")
            raise
        finally:
            if "--keep" not in sys.argv:
                stack.compose("down", "--volumes")


def prove(stack: Stack, url: str, stages: Stages) -> None:
    """From nothing to samples, past two kills."""
    began = time.monotonic()
    if stack.compose("up", "--no-build", "-d") != 0:
        sys.exit("the stack did not come up")
    stages.reached("podman-compose up has returned")
    for service in ("postgres", "seaweedfs"):
        wait_for(lambda name=service: stack.is_healthy(name), 180, service)  # type: ignore[misc]
        stages.reached(f"{service} is healthy")
    wait_for(lambda: stack.state("migrations") == "exited", 240, "the migrations")
    assert stack.exit_status("migrations") == 0
    stages.reached("tables are made, and every part was tried")
    wait_for(lambda: stack.is_healthy("ray-head"), 240, "the head of the Ray cluster")
    stages.reached("the Ray cluster answers")
    wait_for(lambda: is_ready(url), 240, "the service")
    stages.reached("the service is ready")
    found = re.findall(r"is not shown again: (\S+)", stack.log("service"))
    assert len(found) == 1, "the first admin key is said once"
    http = httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {found[0]}"}, timeout=60)
    assert httpx2.get(f"{url}/v1/jobs").status_code == 401
    job = http.post("/v1/jobs", json=JOB).raise_for_status().json()["id"]
    stages.reached("a job is submitted from outside")
    follower = Follower(url, found[0], job)
    follower.start()
    wait_for(lambda: first_grid(follower) is not None, 300, "the first grid")
    stages.reached("its first step", follower.first_at["first_step"])
    stages.reached("its first grid of samples", first_grid(follower))
    print(f"{time.monotonic() - began:8.1f} s  in all, from up to the first grid")
    published = {name: ports for name, ports in stack.published().items() if ports}
    print(f"published: {published}")
    assert set(published) == {"service", "seaweedfs"}
    stages.reached("what is published was looked at")
    stack.kill("ray-worker")
    wait_for(lambda: trains_again(http, job), 300, "the attempt after the worker's death")
    stages.reached("the Ray worker was killed, and the job goes on as a new attempt")
    stack.kill("service")
    wait_for(lambda: is_ready(url), 240, "the service")
    stages.reached("the service was killed, and is ready again")
    follower.join(600)
    assert follower.end is not None
    assert follower.end["state"] == "succeeded", follower.end
    assert follower.seen
    assert follower.lost == []
    events, cuts = len(follower.seen), follower.cuts
    stages.reached("the job has succeeded; its attempts:")
    ends = http.get(f"/v1/jobs/{job}").raise_for_status().json()["attempts"]
    for attempt in ends:
        print(f"{'':12}{attempt['reason']}: {attempt['message']}")
    # The service's death interrupts nothing.
    assert [attempt["reason"] for attempt in ends] == ["worker_lost", "completed"]
    print(f"of {events} events none is lost, over {cuts} cuts of the stream")
    answer = http.get(f"/v1/jobs/{job}/samples?n=64&seed=0").raise_for_status()
    assert answer.content.startswith(b"\x89PNG")
    stages.reached(f"64 samples were fetched: {len(answer.content)} bytes of PNG")


def is_ready(url: str) -> bool:
    """Whether the service says that it can do its work."""
    try:
        return httpx2.get(f"{url}/readyz", timeout=20).status_code == 200
    except httpx2.HTTPError:
        return False


def trains_again(http: httpx2.Client, job: str) -> bool:
    """Whether its second attempt has done its first step; no, while nobody answers."""
    try:
        found = http.get(f"/v1/jobs/{job}").raise_for_status().json()
    except httpx2.HTTPError:
        return False
    return len(found["attempts"]) == 2 and found["reason"] == "training"


def first_grid(follower: Follower) -> float | None:
    """When the first grid was heard of."""
    times = [at for what, at in follower.first_at.items() if what.startswith("artifact grids/")]
    return min(times, default=None)


if __name__ == "__main__":
    try:
        main()
    except (AssertionError, TimeoutError, subprocess.CalledProcessError, httpx2.HTTPError) as error:
        sys.exit(f"the stack is not as it should be: {type(error).__name__}: {error}")
