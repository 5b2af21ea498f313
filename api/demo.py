"""The demonstration: start a service, train on real digits over HTTP, fetch samples, stop it."""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from api.client import Client, Unreachable
from api.watching import watch_job
from service.settings import environment_of_defaults

FILMSTRIP_EPOCHS = (1, 5, 10, 20, 40, 60)
SAMPLES, LATENTS = 64, 8
START_S, STOP_S = 120.0, 40.0
_PR_SET_PDEATHSIG = 1


def run_demo(output: Path, epochs: int, console: Console) -> None:
    """Write samples.png and filmstrip.png into ``output``.

    Raises ClientError, RuntimeError; the service is stopped in every case.
    """
    output.mkdir(parents=True, exist_ok=True)
    marks = sorted({epoch for epoch in FILMSTRIP_EPOCHS if epoch < epochs} | {epochs})
    spec = {
        "dataset": {"name": "mnist-10k"},
        "trainer": {"kind": "delta_vae", "epochs": epochs},
        "checkpoint_at_epochs": marks,
    }
    with _service(output, console) as url, Client(url) as client:
        console.print(f"The service answers at {url}; submitting a δ-VAE on 10,000 real digits.")
        job = client.submit(spec, name="demo")
        watch_job(job, console)
        pictures = {
            "samples.png": job.samples_png(SAMPLES),
            "filmstrip.png": job.filmstrip_png(marks, LATENTS),
        }
        for name, content in pictures.items():
            (output / name).write_bytes(content)
    _say_where(output, url, job.id, spec, marks, console)


def _say_where(
    output: Path, url: str, job_id: str, spec: dict[str, Any], marks: list[int], console: Console
) -> None:
    job_url = f"{url}/v1/jobs/{job_id}"
    samples = f"{job_url}/samples?n={SAMPLES}&seed=0&format=png"
    strip = f"{job_url}/filmstrip?epochs={','.join(str(m) for m in marks)}&n={LATENTS}"
    body = json.dumps({"name": "demo", "spec": spec})
    lines = (
        "",
        f"Samples:     {output / 'samples.png'}",
        f"Film strip:  {output / 'filmstrip.png'}  (the same latents by epoch; real digits below)",
        f"Address of the grid: {samples}",
        f"To have the service again: {_serve_hint(output, url)}",
        "",
        "The same with curl:",
        f"  curl -X POST {url}/v1/jobs -H 'Content-Type: application/json' -d '{body}'",
        f"  curl -N {job_url}/events -H 'Accept: text/event-stream'",
        f"  curl -o samples.png '{samples}'",
        f"  curl -o filmstrip.png '{strip}'",
    )
    for line in lines:
        console.print(line, markup=False)


def _serve_hint(output: Path, url: str) -> str:
    port = url.rpartition(":")[2]
    return f"{_own_name()} serve --port {port} --data-dir {_data_dir(output)}"


def _own_name() -> str:
    """How this program was called, so that the hint works without an activated environment."""
    called = Path(sys.argv[0])
    if called.name != "spreadtrain":
        return "python -m api.cli"
    return called.name if shutil.which(called.name) == str(called) else os.path.relpath(called)


def _data_dir(output: Path) -> Path:
    return output / "data"


@contextlib.contextmanager
def _service(output: Path, console: Console) -> Iterator[str]:
    """A service of its own process for the length of the block; gives its address."""
    port = _free_port()
    log = output / "service.log"
    command = [sys.executable, "-m", "api.cli", "serve", "--port", str(port)]
    command += ["--data-dir", str(_data_dir(output))]
    console.print("Starting the service …")
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            # Not as one more service on the database and the Ray that the shell may name.
            env=environment_of_defaults(),
            # Ctrl-C reaches this process alone, which then stops the service in order.
            start_new_session=True,
            preexec_fn=_die_with_parent(),
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _await_ready(process, url, log)
        yield url
    finally:
        _stop(process, console)


def _await_ready(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    with Client(url, timeout_s=10) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                last = log.read_text(errors="replace").strip().splitlines()[-1:]
                raise RuntimeError(f"the service did not start: {' '.join(last)} (see {log})")
            with contextlib.suppress(Unreachable):
                if client.ready().ready:
                    return
            time.sleep(0.2)
    raise RuntimeError(f"the service was not ready after {START_S:g} s (see {log})")


def _stop(process: "subprocess.Popen[bytes]", console: Console) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
        console.print("The service is stopped; nothing of it is left running.")
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        console.print("The service did not stop in time and was killed.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _die_with_parent() -> Any:
    """What makes a child on Linux get SIGTERM when this process is killed; None elsewhere."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl  # found here: a forked child should load nothing
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
