import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.artifacts.s3.location import S3Location
from workers.artifacts.s3.uploads import PART_BYTES, PARTS_MAX, part_bytes
from workers.errors import ArtifactNotFound, StoreError

ENDPOINTS = st.sampled_from(
    ["", "http://127.0.0.1:8333", "https://s3.example.org", "http://[::1]:9000"]
)


@given(
    bucket=st.from_regex(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", fullmatch=True),
    prefix=st.from_regex(
        r"([a-z0-9_][a-zA-Z0-9_.=-]{0,9}(/[a-z0-9][a-z0-9=]{0,9}){0,3})?", fullmatch=True
    ),
    endpoint=ENDPOINTS,
    region=st.sampled_from(["", "us-east-1", "eu-central-1"]),
    public_endpoint=ENDPOINTS,
)
def test_a_location_survives_its_uri(
    bucket: str, prefix: str, endpoint: str, region: str, public_endpoint: str
) -> None:
    location = S3Location(bucket, prefix, endpoint, region, public_endpoint)
    assert S3Location.parse(location.uri) == location
    assert location.key(location.name("jobs/a")) == "jobs/a"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://", "names no bucket"),
        ("s3:///prefix", "names no bucket"),
        ("s3://b", "names no bucket"),
        ("s3://bucket/../x", "prefix"),
        ("s3://bucket/a//b", "prefix"),
        ("s3://bucket/a%20b", "prefix"),
        ("s3://bucket?endpoint=server:8333", "endpoint must be like"),
        ("s3://bucket?endpoint=ftp://server", "endpoint must be like"),
        ("s3://bucket?endpoint=http://server/path", "endpoint must be like"),
        ("s3://bucket?endpoint=http://server:port", "endpoint must be like"),
        ("s3://bucket?endpoint=http://", "endpoint must be like"),
        ("s3://bucket?public_endpoint=server", "public_endpoint must be like"),
        ("s3://bucket?region=a/b", "region"),
        ("s3://bucket?region=a&region=b", "once"),
        ("s3://bucket?secret=hunter2", "and no other"),
        ("s3://bucket?endpoint", "cannot be read"),
        ("s3://AKIA:hunter2@bucket/x", "credentials have no place"),
        ("s3://bucket?endpoint=http://AKIA:hunter2@server", "endpoint must be like"),
        ("s3://bucket/x#hunter2", "no place"),
        ("s3://[hunter2/x", "cannot be read"),
    ],
)
def test_a_uri_that_is_no_location_is_refused_without_repeating_it(uri: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        S3Location.parse(uri)
    assert "hunter2" not in str(caught.value)


def test_no_key_leaves_its_prefix() -> None:
    location = S3Location("bucket", "runs")
    assert location.name("a/b") == "runs/a/b"
    for key in ("../a", "/a", "a//b", ""):
        with pytest.raises(ArtifactNotFound):
            location.name(key)


@given(st.integers(1, 5 << 40))
def test_a_file_of_any_size_has_parts_of_a_size_that_s3_takes(size_bytes: int) -> None:
    step = part_bytes(size_bytes)
    assert PART_BYTES <= step <= 5 << 30
    assert -(-size_bytes // step) <= PARTS_MAX
