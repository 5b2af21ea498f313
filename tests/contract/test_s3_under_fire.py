"""Every operation of an object store under every fault: it ends right, or says what is wrong.

A fault that passes is not noticed; one that stays is an error after a bounded number of requests,
and nothing half done shows. Once it is over, the same operation ends right.
"""

import itertools
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.s3_servers import (
    ACCESS_KEY,
    BUCKET,
    SECRET_KEY,
    SLOW_S,
    Fault,
    Proxy,
    client,
    proxy_of,
)
from workers.artifacts import ArtifactStore, Capabilities, open_store
from workers.artifacts.s3 import client as s3_client
from workers.artifacts.s3.client import ATTEMPTS
from workers.artifacts.s3.location import S3Location
from workers.artifacts.s3.uploads import PART_BYTES
from workers.errors import ArtifactExists, ArtifactNotFound, StoreAway, StoreError

pytestmark = pytest.mark.usefixtures("s3_credentials", "soon")
SILENCE_S = 2.0  # within it a busy machine answers
SILENCED = ("put", "get", "list")  # each try of them waits for it
SMALL, MIDDLE = os.urandom(1000), os.urandom((1 << 20) + 1)
IN_PARTS = os.urandom(PART_BYTES + 1)
# The most requests of one operation, each of which may be tried so often.
REQUESTS_MAX = 20 * ATTEMPTS

# Passing: the server is well again at the next try. Lasting: by repeating nothing is won.
PASSING: tuple[Fault, ...] = (
    "slow",
    "reset",
    "lost",
    "silent",
    "internal_error",
    "error_after",
    "slow_down",
    "truncated",
)
LASTING: tuple[Fault, ...] = ("skewed_clock", "expired_token")


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is noticed soon, and nothing is waited for between two tries."""
    monkeypatch.setattr(s3_client, "PROMPT_TIMEOUT_S", SILENCE_S)
    monkeypatch.setattr(s3_client, "PATIENT_TIMEOUT_S", SILENCE_S)
    backoff = "botocore.retries.standard.ExponentialBackoff.delay_amount"
    monkeypatch.setattr(backoff, lambda self, context: 0.0)


@pytest.fixture(scope="module")
def fire(moto_endpoint: str) -> Iterator[Proxy]:
    with proxy_of(moto_endpoint) as proxy:
        yield proxy


@dataclass
class Scene:
    """A store behind the fire, the same without it, and a file to upload."""

    hit: ArtifactStore
    clear: ArtifactStore
    file: Path


@dataclass(frozen=True)
class Operation:
    """What is done, and what must be so afterwards; ``before`` makes what it needs."""

    name: str
    act: Callable[[Scene], object]
    is_right: Callable[[Scene, object], bool]
    before: Callable[[Scene], object] = lambda scene: None


def _three(scene: Scene) -> None:
    for name in ("a", "b", "c"):
        scene.clear.put(f"j/{name}", SMALL)


def _put_in_parts(scene: Scene) -> None:
    scene.clear.put_file("j/k", scene.file)


def _copied(scene: Scene) -> bytes:
    with scene.hit.open_file("j/k") as path:
        return path.read_bytes()


def _names(store: ArtifactStore) -> list[str]:
    return [stored.key for stored in store.list("j")]


OF_MOTO = Capabilities(
    range=True,
    multipart=True,
    list=True,
    conditional_put=True,
    batch_delete=True,
    checksums=False,  # it takes wrong ones
)
OPERATIONS = (
    Operation("put", lambda s: s.hit.put("j/k", SMALL), lambda s, _: s.clear.get("j/k") == SMALL),
    Operation(
        "put a middling one",
        lambda s: s.hit.put("j/k", MIDDLE),
        lambda s, _: s.clear.get("j/k") == MIDDLE,
    ),
    Operation(
        "put in parts",
        lambda s: s.hit.put_file("j/k", s.file),
        lambda s, _: s.clear.get("j/k") == IN_PARTS,
    ),
    Operation(
        "get",
        lambda s: s.hit.get("j/a"),
        lambda s, found: found == SMALL,
        _three,
    ),
    Operation(
        "read a part",
        lambda s: b"".join(s.hit.stream("j/k", 1000, PART_BYTES)),
        lambda s, found: found == IN_PARTS[1000:PART_BYTES],
        _put_in_parts,
    ),
    Operation("fetch", _copied, lambda s, found: found == IN_PARTS, _put_in_parts),
    Operation("exists", lambda s: s.hit.exists("j/a"), lambda s, found: found is True, _three),
    Operation("is absent", lambda s: s.hit.exists("j/z"), lambda s, found: found is False),
    Operation("size", lambda s: s.hit.size("j/a"), lambda s, found: found == len(SMALL), _three),
    Operation(
        "list",
        lambda s: _names(s.hit),
        lambda s, found: found == ["j/a", "j/b", "j/c"],
        _three,
    ),
    Operation(
        "delete",
        lambda s: s.hit.delete("j/a"),
        lambda s, _: _names(s.clear) == ["j/b", "j/c"],
        _three,
    ),
    Operation(
        "delete many",
        lambda s: s.hit.delete_many(["j/a", "j/c"]),
        lambda s, _: _names(s.clear) == ["j/b"],
        _three,
    ),
    Operation("check", lambda s: s.hit.check(), lambda s, _: True),
    Operation(
        "capabilities",
        lambda s: s.hit.capabilities(),
        lambda s, found: found == OF_MOTO,
    ),
)
BY_NAME = {operation.name: operation for operation in OPERATIONS}


Set = Callable[[], Scene]


@pytest.fixture
def set_scene(
    fire: Proxy, moto_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Set]:
    """Makes scenes at places of their own; their stores share a session, which takes a while."""
    session = s3_client.begin(S3Location.parse(f"s3://{BUCKET}"))
    monkeypatch.setattr("workers.artifacts.s3.store.begin", lambda location: session)
    file = tmp_path / "file"
    file.write_bytes(IN_PARTS)
    fire.silence.clear()

    def make() -> Scene:
        place = f"s3://{BUCKET}/{secrets.token_hex(8)}?endpoint="
        hit, clear = (open_store(f"{place}{end}") for end in (fire.endpoint, moto_endpoint))
        return Scene(hit, clear, file)

    yield make
    fire.faults.end()
    fire.silence.set()


def cases(faults: Iterable[Fault]) -> pytest.MarkDecorator:
    """Every operation with every fault, but for silence, which takes its time."""
    pairs = itertools.product(BY_NAME, faults)
    cases = [(name, fault) for name, fault in pairs if fault != "silent" or name in SILENCED]
    return pytest.mark.parametrize(("name", "fault"), cases)


@cases(PASSING)
def test_a_fault_that_passes_is_not_noticed(
    fire: Proxy, set_scene: Set, name: str, fault: Fault
) -> None:
    operation, scene = BY_NAME[name], set_scene()
    operation.before(scene)
    fire.faults.begin(fault, ATTEMPTS - 1)
    found = operation.act(scene)
    assert fire.faults.met
    assert operation.is_right(scene, found)


@cases([*PASSING[1:], *LASTING])
def test_a_fault_that_stays_is_an_error_in_a_bounded_number_of_requests(
    fire: Proxy, set_scene: Set, name: str, fault: Fault
) -> None:
    operation, scene = BY_NAME[name], set_scene()
    operation.before(scene)
    fire.faults.begin(fault, 10_000)
    begin = time.monotonic()
    if not _is_harmless(fault, name):
        with pytest.raises(StoreError) as caught:
            operation.act(scene)
        assert not isinstance(caught.value, ArtifactNotFound | ArtifactExists)
        assert isinstance(caught.value, StoreAway) == (fault not in LASTING)
        assert SECRET_KEY not in str(caught.value)
    assert fire.faults.met <= REQUESTS_MAX
    assert time.monotonic() - begin < 60  # a hang, not a pace
    fire.faults.end()
    assert _nothing_half_done(scene)
    assert operation.is_right(scene, operation.act(scene))


def _is_harmless(fault: Fault, name: str) -> bool:
    """An answer without a body has nothing to truncate."""
    return fault == "truncated" and name in (
        "exists",
        "is absent",
        "size",
        "delete",
        "put",
        "put a middling one",
    )


def _nothing_half_done(scene: Scene) -> bool:
    return all(
        scene.clear.get(stored.key) in (SMALL, MIDDLE, IN_PARTS) for stored in scene.clear.list("j")
    )


@pytest.mark.parametrize("name", BY_NAME)
def test_each_request_of_an_operation_may_lose_its_answer(
    fire: Proxy, set_scene: Set, name: str
) -> None:
    operation = BY_NAME[name]
    for spared in range(REQUESTS_MAX):
        scene = set_scene()
        operation.before(scene)
        fire.faults.begin("lost", 1, spared)
        found = operation.act(scene)
        assert operation.is_right(scene, found), spared
        if not fire.faults.met:
            assert spared  # all of its requests have met it
            return
    raise AssertionError("there is no end of requests")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("skewed_clock", "this node's clock and the S3 server's differ"),
        ("expired_token", r"does not accept this node's credentials \(ExpiredToken\)"),
    ],
)
def test_what_is_wrong_with_this_node_is_named(
    fire: Proxy, set_scene: Set, fault: Fault, said: str
) -> None:
    scene = set_scene()
    fire.faults.begin(fault, 1)
    with pytest.raises(StoreError, match=said):
        scene.hit.put("j/k", SMALL)
    scene.hit.put("j/k", SMALL)


def test_rotated_credentials_are_taken_from_the_file_without_a_restart(
    fire: Proxy, moto_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "CREDENTIALS_S", SLOW_S)
    file = tmp_path / "credentials"

    def rotate(key: str) -> None:
        file.write_text(f"[default]\naws_access_key_id={key}\naws_secret_access_key={SECRET_KEY}\n")
        fire.known_key = key

    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    try:
        rotate(ACCESS_KEY)
        store = open_store(f"s3://{BUCKET}/{secrets.token_hex(8)}?endpoint={fire.endpoint}")
        store.put("before", SMALL)
        rotate("the-new-key")
        time.sleep(2 * SLOW_S)
        store.put("after", SMALL)
        assert store.get("before") == store.get("after")
        file.unlink()  # for the moment, as where it is being replaced
        time.sleep(2 * SLOW_S)
        assert store.get("after") == SMALL
        fire.known_key = "yet-another-key"
        with pytest.raises(StoreError, match=r"credentials \(InvalidAccessKeyId\)"):
            store.get("after")
    finally:
        fire.known_key = ""
    assert client(moto_endpoint).list_buckets()["Buckets"]
