"""Public files with a known digest, fetched into the cache folder when they are first needed."""

import contextlib
import hashlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workers.data.kept import replacing
from workers.errors import DatasetUnavailable

SILENCE_S = 30.0
_PIECE_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class PublicFile:
    """A file at ``base_url`` whose size and SHA-256 are known before it is fetched."""

    base_url: str
    name: str
    size_bytes: int
    sha256: str

    @property
    def url(self) -> str:
        """Its address."""
        return f"{self.base_url.rstrip('/')}/{self.name}"


def fetch(file: PublicFile, folder: Path) -> Path:
    """Download the file into the folder, whole and right or not at all.

    Raises DatasetUnavailable that says where else to get it.
    """
    target = folder / file.name
    digest = hashlib.sha256()
    size = 0
    with replacing(target) as temporary, temporary.open("wb") as written:
        with _explained(file, folder.name):
            for piece in _pieces(file):
                size += len(piece)
                digest.update(piece)
                if size <= file.size_bytes:
                    written.write(piece)
        if (size, digest.hexdigest()) != (file.size_bytes, file.sha256):
            raise DatasetUnavailable(
                f"{file.url} did not answer with the {file.size_bytes:,} bytes of SHA-256 "
                f"{file.sha256} that are known of this file; it is not used. {_by_hand(file)}"
            )
    return target


def _pieces(file: PublicFile) -> Iterator[bytes]:
    """The answer's bytes, at most one piece more than the file has."""
    request = urllib.request.Request(file.url, headers={"User-Agent": "spreadtrain"})
    size = 0
    with urllib.request.urlopen(request, timeout=SILENCE_S) as answer:
        while size <= file.size_bytes and (piece := answer.read(_PIECE_BYTES)):
            size += len(piece)
            yield piece


@contextlib.contextmanager
def _explained(file: PublicFile, name: str) -> Iterator[None]:
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        raise DatasetUnavailable(
            f"{name} is not on this machine, and {file.url} answered {error.code}. {_by_hand(file)}"
        ) from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as e:
        cause = e.reason if isinstance(e, urllib.error.URLError) else e
        raise DatasetUnavailable(
            f"{name} is not on this machine, and {file.url} cannot be reached ({cause}). "
            f"{_by_hand(file)}"
        ) from e


def _by_hand(file: PublicFile) -> str:
    return f"Put {file.name} into the folder of that name in the data cache, and try again."
