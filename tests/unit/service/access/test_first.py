"""The first key, and which addresses a service may listen on."""

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.access.first import prepare
from service.access.keys import Keyring, Scope, digest_of, id_of, is_usable, new_secret
from service.access.making import make, revoke, stored_key
from service.errors import ConfigurationError
from service.jobstore import JobStore
from service.settings import Settings
from tests.contract.jobstore.making import together


def settings(tmp_path: Path, **given: Any) -> Settings:
    return Settings(data_dir=tmp_path, **given)


def silent(text: str) -> None:
    raise AssertionError(f"said {text}")


def a_key(jobs: JobStore, owner: str = "ana") -> str:
    secret = new_secret()
    make(jobs, stored_key(secret, owner, Scope.ADMIN), "test", 60)
    return secret


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_without_a_key_a_service_listens_on_loopback_only(
    host: str, jobs: JobStore, tmp_path: Path
) -> None:
    public = settings(tmp_path, host=host)
    with pytest.raises(ConfigurationError, match=r"no API key .*spreadtrain keys create"):
        prepare(public, jobs, silent)
    prepare(settings(tmp_path), jobs, silent)
    secret = a_key(jobs)
    prepare(public, jobs, silent)
    revoke(jobs, id_of(digest_of(secret)), "test", 60)
    with pytest.raises(ConfigurationError, match="no API key that lives"):
        prepare(public, jobs, silent)


def test_the_first_key_is_made_into_its_file_and_said_once(
    jobs: JobStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "volume" / "admin-key"
    public, said = settings(tmp_path, host="0.0.0.0", admin_key_file=file), list[str]()
    prepare(public, jobs, said.append)
    secret = file.read_text().strip()
    assert [secret in text for text in said] == [True]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [entry.name for entry in file.parent.iterdir()] == ["admin-key"]
    key = Keyring(jobs.keys.all()).find(secret)
    assert key is not None
    assert (key.owner, key.scope) == ("admin", Scope.ADMIN)
    prepare(public, jobs, silent)  # the second start says nothing, and makes none
    assert len(jobs.keys.all()) == 1
    assert secret not in caplog.text
    assert [entry.deed.action for entry in jobs.audit.page(None, None, 9).entries] == [
        "keys create"
    ]


def test_the_first_key_is_taken_from_a_file_that_is_there(jobs: JobStore, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("0123456789abcdef" * 4 + "\n")
    prepare(settings(tmp_path, admin_key_file=file), jobs, silent)
    assert Keyring(jobs.keys.all()).find("0123456789abcdef" * 4) is not None


def test_a_file_that_holds_no_key_is_refused_without_its_content(
    jobs: JobStore, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    for content in ("hunter2", "correct horse battery staple correct horse", "ü" * 40, ""):
        file.write_text(content)
        with pytest.raises(ConfigurationError, match="openssl rand -hex 32") as refusal:
            prepare(settings(tmp_path, admin_key_file=file), jobs, silent)
        assert not content or content not in str(refusal.value)
    file.unlink()
    file.mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        prepare(settings(tmp_path, admin_key_file=file), jobs, silent)
    blocked = settings(tmp_path, admin_key_file=tmp_path / "database" / "key")
    (tmp_path / "database").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be"):
        prepare(blocked, jobs, silent)
    assert jobs.keys.all() == []


def test_the_file_is_of_the_first_key_alone(
    jobs: JobStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a_key(jobs)
    file = tmp_path / "key"
    prepare(settings(tmp_path, admin_key_file=file), jobs, silent)
    assert not file.exists()
    secret = new_secret()
    file.write_text(secret)
    prepare(settings(tmp_path, admin_key_file=file), jobs, silent)
    assert "opens nothing" in caplog.text
    assert secret not in caplog.text
    assert Keyring(jobs.keys.all()).find(secret) is None


def test_of_services_that_start_at_once_one_makes_the_key(
    postgres_url: str, tmp_path: Path
) -> None:
    said = list[str]()

    def start(number: int) -> Callable[[], None]:
        def started() -> None:
            jobs = JobStore.open(postgres_url)
            prepare(settings(tmp_path, admin_key_file=tmp_path / "key"), jobs, said.append)
            jobs.close()

        return started

    assert together([start(number) for number in range(3)]) == [None] * 3
    jobs = JobStore.open(postgres_url)
    assert len(jobs.keys.all()) == len(said) == 1
    assert Keyring(jobs.keys.all()).find((tmp_path / "key").read_text().strip()) is not None
    jobs.close()


def test_what_is_kept_of_a_key_does_not_open(jobs: JobStore) -> None:
    secret = a_key(jobs)
    keyring = Keyring(jobs.keys.all())
    (key,) = jobs.keys.all()
    assert keyring.find(secret) == key
    for kept in (key.id, key.digest, secret[:-1], secret + "a", secret.upper(), ""):
        assert keyring.find(kept) is None
    assert secret not in repr(key)


def test_keys_have_256_random_bits_and_are_usable() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    for secret in made:
        assert is_usable(secret)
        assert len(secret.removeprefix("spreadtrain_")) == 43  # 256 bits in letters of 6
