from pathlib import Path

import pytest

from service.errors import ConfigurationError
from service.settings import (
    Settings,
    client_key,
    environment_of_defaults,
    prepare_ray_environment,
)
from tests.e2e.processes import ROOT


def test_the_defaults_need_no_environment(tmp_path: Path) -> None:
    settings = Settings.from_environment({})
    assert settings.database.startswith("sqlite:////")
    assert settings.artifacts.startswith("file:///")
    assert settings.datasets_dir.is_absolute()


def test_variables_are_read_with_their_prefix() -> None:
    settings = Settings.from_environment(
        {"SPREADTRAIN_PORT": "9000", "SPREADTRAIN_DATA_DIR": "/data", "PORT": "1"}
    )
    assert settings.port == 9000
    assert settings.database == "sqlite:////data/spreadtrain.db"


def test_an_unknown_variable_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"SPREADTRAIN_PROT is not a .*SPREADTRAIN_PORT"):
        Settings.from_environment({"SPREADTRAIN_PROT": "9000"})


def test_a_value_out_of_range_is_an_error_that_names_the_variable() -> None:
    with pytest.raises(ConfigurationError, match="SPREADTRAIN_PORT"):
        Settings.from_environment({"SPREADTRAIN_PORT": "99999"})


@pytest.mark.parametrize("host", ["example.org", "127.0.0.1:80", ""])
def test_an_address_to_listen_on_is_one(host: str) -> None:
    with pytest.raises(ConfigurationError, match="no IP address"):
        Settings.checked({"host": host})


def test_which_addresses_other_machines_reach_is_known() -> None:
    for host in ("127.0.0.1", "::1", "localhost", "127.0.0.2"):
        assert Settings.from_environment({"SPREADTRAIN_HOST": host}).is_loopback
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        settings = Settings.from_environment({"SPREADTRAIN_HOST": host})
        assert (settings.is_loopback, settings.is_wildcard) == (False, host != "192.0.2.1")


def test_the_names_of_the_service_are_listed_without_scheme_and_port() -> None:
    settings = Settings.checked({"host": "::1", "allowed_hosts": "Train.example, [2001:db8::1]"})
    assert settings.host_names == {"[::1]", "train.example", "[2001:db8::1]"}
    for wrong in ("https://train.example", "train.example:80", "a b"):
        with pytest.raises(ConfigurationError, match=r"SPREADTRAIN_ALLOWED_HOSTS.*without scheme"):
            Settings.checked({"allowed_hosts": wrong})


def test_a_client_has_its_key_from_the_environment_or_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("from-the-file\n")
    by_file = {"SPREADTRAIN_API_KEY_FILE": str(file)}
    assert client_key({}) is None
    assert client_key(by_file) == "from-the-file"
    assert client_key({**by_file, "SPREADTRAIN_API_KEY": "given"}) == "given"
    assert Settings.from_environment({**by_file, "SPREADTRAIN_API_KEY": "given"})  # not its own
    with pytest.raises(ConfigurationError, match=r"API_KEY_FILE: .*gone cannot be read"):
        client_key({"SPREADTRAIN_API_KEY_FILE": str(tmp_path / "gone")})


def test_weights_are_a_path_or_a_web_address() -> None:
    for given in ("/srv/weights.pth", "https://mirror.example/weights.pth"):
        settings = Settings.from_environment({"SPREADTRAIN_FID_WEIGHTS": given})
        assert settings.fid_weights == given
    with pytest.raises(ConfigurationError, match=r"SPREADTRAIN_FID_WEIGHTS.*neither a path"):
        Settings.from_environment({"SPREADTRAIN_FID_WEIGHTS": "ftp://mirror.example/weights.pth"})


def test_the_address_of_ray_is_read_under_its_own_name() -> None:
    assert Settings.from_environment({"RAY_ADDRESS": "node:6379"}).ray_address == "node:6379"


def test_an_own_ray_gets_a_token_of_its_own_and_a_joined_one_the_users() -> None:
    own: dict[str, str] = {"RAY_AUTH_TOKEN": "left over"}
    prepare_ray_environment(False, own)
    assert own["RAY_AUTH_MODE"] == "token"
    assert len(own["RAY_AUTH_TOKEN"]) == 64
    joined = {"RAY_AUTH_TOKEN": "the cluster's"}
    prepare_ray_environment(True, joined)
    assert joined["RAY_AUTH_TOKEN"] == "the cluster's"


def test_memory_for_the_next_step_is_kept_unless_the_user_says_otherwise() -> None:
    unset: dict[str, str] = {}
    prepare_ray_environment(False, unset)
    assert unset["MALLOC_ARENA_MAX"] == "1"
    chosen = {"MALLOC_ARENA_MAX": "8"}
    prepare_ray_environment(False, chosen)
    assert chosen["MALLOC_ARENA_MAX"] == "8"


def test_a_store_in_s3_crosses_to_other_nodes_with_its_options_and_no_secret() -> None:
    settings = Settings.from_environment(
        {
            "SPREADTRAIN_ARTIFACTS_URI": "s3://bucket/runs",
            "SPREADTRAIN_S3_ENDPOINT": "http://10.0.0.1:8333",
            "SPREADTRAIN_S3_REGION": "eu-central-1",
            "SPREADTRAIN_S3_PUBLIC_ENDPOINT": "https://s3.example.org",
            "AWS_SECRET_ACCESS_KEY": "hunter2",
        }
    )
    assert settings.artifacts == (
        "s3://bucket/runs?endpoint=http://10.0.0.1:8333&region=eu-central-1"
        "&public_endpoint=https://s3.example.org"
    )
    assert Settings(artifacts_uri="s3://bucket").artifacts == "s3://bucket"


def test_an_option_of_s3_without_s3_is_an_error_that_names_both() -> None:
    with pytest.raises(ConfigurationError, match=r"S3_ENDPOINT is set.*ARTIFACTS_URI is not"):
        Settings.from_environment({"SPREADTRAIN_S3_ENDPOINT": "http://10.0.0.1:8333"})


def example_secrets() -> dict[str, str]:
    """What the example for the compose stack sets, in place of the secrets of an installation."""
    text = (ROOT / "deploy" / "compose.env.example").read_text(encoding="utf-8")
    pairs = [line.partition("=") for line in text.splitlines() if line[:1].isalpha()]
    return {name: value for name, _, value in pairs}


@pytest.mark.parametrize("name", sorted(example_secrets()))
def test_an_examples_secret_is_refused_and_named(name: str) -> None:
    own = dict.fromkeys(example_secrets(), "f00dfeed" * 6)
    assert Settings.from_environment(own)
    with pytest.raises(ConfigurationError, match=f"example's value.*: {name};"):
        Settings.from_environment(own | {name: example_secrets()[name]})


def test_an_examples_secret_is_found_inside_a_url_and_not_repeated() -> None:
    url = f"postgresql+psycopg://u:{example_secrets()['POSTGRES_PASSWORD']}@db/spreadtrain"
    with pytest.raises(ConfigurationError, match="SPREADTRAIN_DATABASE_URL") as refused:
        Settings.from_environment({"SPREADTRAIN_DATABASE_URL": url})
    assert "replace-me" not in str(refused.value)


def test_a_service_of_defaults_shares_nothing_with_the_shells() -> None:
    shell = {"PATH": "/bin", "RAY_ADDRESS": "ray:6379", "SPREADTRAIN_DATABASE_URL": "sqlite:///x"}
    found = environment_of_defaults(shell)
    assert found == {"PATH": "/bin"}
    assert Settings.from_environment(found) == Settings()
