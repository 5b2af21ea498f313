"""Keys on the command line, and how clients have theirs."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.cli import app
from api.client import ApiError, Client, ClientError
from service.access.keys import KeyLimits, Keyring, Scope, new_secret
from service.jobstore import JobStore
from tests.unit.api.conftest import Quiet
from tests.unit.api.keyed import holder
from tests.unit.api.test_cli import refused


@pytest.fixture
def runner(tmp_path: Path) -> CliRunner:
    return CliRunner(env={"SPREADTRAIN_DATA_DIR": str(tmp_path), "COLUMNS": "200"})


def stored(tmp_path: Path) -> JobStore:
    return JobStore.open(f"sqlite:///{tmp_path / 'spreadtrain.db'}")


def test_a_key_is_made_shown_once_listed_and_revoked(runner: CliRunner, tmp_path: Path) -> None:
    limits = ["--max-running", "3", "--max-storage-bytes", "1000", "--requests-per-s", "2.5"]
    made = runner.invoke(app, ["keys", "create", "ana", "--scope", "read", *limits])
    assert made.exit_code == 0, made.output
    secret = made.stdout.strip()  # and nothing else, for $(…)
    jobs = stored(tmp_path)
    key = Keyring(jobs.keys.all()).find(secret)
    assert key is not None
    assert (key.owner, key.scope) == ("ana", Scope.READ)
    assert key.limits == KeyLimits(3, 1000, 2.5)
    listed = runner.invoke(app, ["keys", "list"])
    assert key.id in listed.stdout
    assert "3 jobs, 1,000 bytes, 2.5 requests/s" in listed.stdout
    assert secret not in listed.output
    assert key.digest not in listed.output
    assert "is revoked" in runner.invoke(app, ["keys", "revoke", key.id]).stdout
    assert Keyring(jobs.keys.all()).find(secret) is None
    assert not Keyring(jobs.keys.all()).is_open
    entries = jobs.audit.page(None, None, 9).entries
    assert [(e.deed.action, e.status) for e in entries] == [("keys revoke", 0), ("keys create", 0)]
    assert all(e.deed.client.startswith("command line, user ") for e in entries)
    jobs.close()


def test_what_cannot_be_a_key_is_one_red_line(runner: CliRunner) -> None:
    refused(runner.invoke(app, ["keys", "create", "Ana Müller"]), "the owner must begin with")
    refused(runner.invoke(app, ["keys", "revoke", "none"]), "keys list")
    no_database = {"SPREADTRAIN_DATABASE_URL": "postgresql+psycopg://u:hunter2@127.0.0.1:1/x"}
    failed = runner.invoke(app, ["keys", "list"], env=no_database)
    refused(failed, "cannot be opened")
    assert "hunter2" not in failed.output


def test_a_client_asks_with_its_key(
    quiet: Quiet, quiet_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ana = holder(quiet, "ana")
    job = ana.submit()
    with Client(quiet_url) as stranger, pytest.raises(ApiError, match="Authorization: Bearer"):
        stranger.job(job)
    with Client(quiet_url, api_key=ana.secret) as client:
        assert client.job(job).body.owner == "ana"
    monkeypatch.setenv("SPREADTRAIN_API_KEY", ana.secret)
    with Client(quiet_url) as client:
        assert client.job(job).body.owner == "ana"
        assert ana.secret not in repr((vars(client), client.connection, client.connection._http))
    monkeypatch.delenv("SPREADTRAIN_API_KEY")
    file = tmp_path / "key"
    file.write_text(f"{ana.secret}\n")
    runner = CliRunner(env={"SPREADTRAIN_URL": quiet_url, "SPREADTRAIN_API_KEY_FILE": str(file)})
    shown = runner.invoke(app, ["show", job])
    assert json.loads(shown.stdout)["id"] == job
    assert ana.secret not in shown.output


def test_a_key_that_is_none_is_refused_without_being_said(tmp_path: Path) -> None:
    for wrong in ("hunter2", "two words" * 10, "ü" * 40, f"{new_secret()}\nX-Other: 1"):
        with pytest.raises(ClientError, match="the API key is none") as refusal:
            Client(api_key=wrong)
        assert wrong not in str(refusal.value)
    runner = CliRunner(env={"SPREADTRAIN_API_KEY_FILE": str(tmp_path / "gone")})
    refused(runner.invoke(app, ["list"]), "cannot be read")


def test_a_public_address_without_a_key_is_refused_before_anything_starts(
    runner: CliRunner,
) -> None:
    started = runner.invoke(app, ["serve", "--host", "0.0.0.0", "--port", "0"])
    refused(started, "there is no API key that lives; make one with: spreadtrain keys create")
