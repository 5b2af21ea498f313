import gzip
import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from workers.data import idx_files
from workers.data.download import PublicFile, fetch
from workers.data.idx_files import PublicIdx, read_idx_pictures
from workers.errors import DatasetUnavailable

PICTURES = np.random.default_rng(0).integers(0, 256, (30, 4, 4), np.uint8)
CONTENT = gzip.compress(
    b"\0\0\x08\x03" + np.array([30, 4, 4], ">u4").tobytes() + PICTURES.tobytes(), mtime=0
)


class Mirror(BaseHTTPRequestHandler):
    """Serves the file, and variants of it, by folder."""

    def do_GET(self) -> None:
        folder = self.path.split("/")[1]
        if folder == "missing":
            self.send_error(404)
            return
        self.send_response(200)
        if folder == "cut":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        match folder:
            case "good":
                self.wfile.write(CONTENT)
            case "other":
                self.wfile.write(CONTENT[:-1] + b"x")
            case "cut":
                self.wfile.write(CONTENT[:20])
            case "endless":
                try:
                    while True:
                        self.wfile.write(bytes(1 << 16))
                except ConnectionError:
                    self.server.cut_off = True  # type: ignore[attr-defined]

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def public(base_url: str) -> PublicFile:
    return PublicFile(base_url, "images.gz", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


def test_a_file_with_the_known_digest_is_kept(tmp_path: Path, mirror: str) -> None:
    path = fetch(public(f"{mirror}/good"), tmp_path / "toys")
    assert path.read_bytes() == CONTENT
    assert left(tmp_path) == ["images.gz"]


@pytest.mark.parametrize("folder", ["other", "endless"])
def test_another_content_is_not_used_and_not_kept(tmp_path: Path, mirror: str, folder: str) -> None:
    with pytest.raises(DatasetUnavailable, match="is not used"):
        fetch(public(f"{mirror}/{folder}"), tmp_path / "toys")
    assert left(tmp_path) == []


def test_no_more_is_read_than_the_file_has(tmp_path: Path, mirror: str) -> None:
    with pytest.raises(DatasetUnavailable, match=f"the {len(CONTENT)} bytes of SHA-256"):
        fetch(public(f"{mirror}/endless"), tmp_path / "toys")


@pytest.mark.parametrize(("folder", "says"), [("missing", "answered 404"), ("cut", "not used")])
def test_a_mirror_that_fails_is_named(tmp_path: Path, mirror: str, folder: str, says: str) -> None:
    with pytest.raises(DatasetUnavailable, match=says) as refusal:
        fetch(public(f"{mirror}/{folder}"), tmp_path / "toys")
    assert "Put images.gz into the folder of that name" in str(refusal.value)
    assert left(tmp_path) == []


def test_without_a_network_it_says_where_to_put_the_file(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(DatasetUnavailable, match=r"toys is not on this machine.*cannot be reached"):
        fetch(public(f"http://127.0.0.1:{port}"), tmp_path / "toys")
    with pytest.raises(DatasetUnavailable, match="cannot be reached"):
        fetch(public("http://no-such-host.invalid"), tmp_path / "toys")


def test_a_public_set_is_downloaded_once(tmp_path: Path, mirror: str) -> None:
    source = PublicIdx("toys", public(f"{mirror}/good"), (30, 4, 4), "sha256:" + "0" * 64)
    assert source.find(tmp_path) is None
    path = source.get(tmp_path)
    np.testing.assert_array_equal(read_idx_pictures(path), PICTURES)
    elsewhere = replace(source, file=public("http://no-such-host.invalid"))
    assert elsewhere.get(tmp_path) == path


def test_debians_folder_is_looked_into_after_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, debian = tmp_path / "cache", tmp_path / "debian"
    monkeypatch.setattr(idx_files, "DEBIAN_FOLDER", debian)
    source = PublicIdx("toys", public("http://no-such-host.invalid"), (30, 4, 4), "")
    for folder in (debian, cache):
        assert source.find(cache) in (None, debian / "toys" / "images.gz")
        (folder / "toys").mkdir(parents=True)
        (folder / "toys" / "images.gz").write_bytes(CONTENT)
        assert source.find(cache) == source.get(cache) == folder / "toys" / "images.gz"
