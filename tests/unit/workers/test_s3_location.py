import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.artifacts import open_store
from workers.artifacts.s3.client import begin, connect
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


@pytest.mark.usefixtures("s3_credentials")
@pytest.mark.parametrize(
    ("endpoint", "server"),
    [
        ("https://s3.example.org", "https://s3.example.org"),
        # Only here does boto3 alone put the bucket before the host's name.
        ("", "https://s3.eu-central-1.amazonaws.com"),
    ],
)
def test_a_bucket_is_named_in_the_path_and_not_in_the_host(endpoint: str, server: str) -> None:
    location = S3Location("bucket", "p", region="eu-central-1")
    wanted = {"Bucket": "bucket", "Key": location.name("k")}
    s3 = connect(begin(location), location, endpoint)
    url = str(s3.generate_presigned_url("get_object", wanted))
    assert url.startswith(f"{server}/bucket/p/k?")


@pytest.mark.usefixtures("s3_credentials")
def test_a_presigned_address_leads_to_the_public_endpoint() -> None:
    location = S3Location("bucket", "p", "http://inside:8333", "", "https://s3.example.org")
    url = open_store(location.uri).presigned_url("k", 60)
    assert (url or "").startswith("https://s3.example.org/bucket/p/k?")
