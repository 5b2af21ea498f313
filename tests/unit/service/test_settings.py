from pathlib import Path

import pytest

from service.errors import ConfigurationError
from service.settings import Settings, prepare_ray_environment


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


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org"])
def test_without_keys_only_loopback_is_listened_on(host: str) -> None:
    with pytest.raises(ConfigurationError, match="loopback"):
        Settings.from_environment({"SPREADTRAIN_HOST": host})


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.0.0.2"])
def test_loopback_has_several_names(host: str) -> None:
    assert Settings.from_environment({"SPREADTRAIN_HOST": host}).host == host


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
