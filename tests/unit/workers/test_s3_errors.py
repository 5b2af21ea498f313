"""Every exception of the vendor becomes one of ours, with a sentence that fits."""

import inspect

import botocore.exceptions as vendor
import pytest
import urllib3.exceptions

from workers.artifacts.s3.errors import CODES, FAMILIES, explained, translated
from workers.artifacts.s3.location import S3Location
from workers.errors import ArtifactNotFound, StoreAway, StoreError

LOCATION = S3Location("bucket", "runs", "http://server:8333")
KINDS = [
    kind
    for _, kind in inspect.getmembers(vendor, inspect.isclass)
    if issubclass(kind, Exception)
    and not issubclass(kind, Warning)
    and kind.__module__ == vendor.__name__
    # The roots say nothing; an answer's class is told by its code.
    and kind is not vendor.BotoCoreError
    and not issubclass(kind, vendor.ClientError)
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_class_of_the_vendor_is_in_a_family_and_becomes_a_store_error(
    kind: type[Exception],
) -> None:
    assert any(parent in FAMILIES for parent in kind.__mro__)
    error = kind.__new__(kind)  # their constructors all want something else
    Exception.__init__(error, "secret-in-the-vendors-words")
    with pytest.raises(StoreError) as caught, translated(LOCATION, "k"):
        raise error
    assert caught.value.__cause__ is error
    assert "secret-in-the-vendors-words" not in str(caught.value)
    assert "{" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        urllib3.exceptions.ProtocolError("broken off"),
        urllib3.exceptions.IncompleteRead(1, 2),
        urllib3.exceptions.SSLError("no"),
    ],
)
def test_what_slips_through_the_vendor_becomes_a_store_error_too(error: Exception) -> None:
    with pytest.raises(StoreError, match="broke off"), translated(LOCATION):
        raise error


def answer(code: str, status: int) -> vendor.ClientError:
    return vendor.ClientError(
        {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}},
        "GetObject",
    )


@pytest.mark.parametrize("code", CODES)
def test_every_known_answer_has_its_sentence(code: str) -> None:
    sentence = str(explained(answer(code, 400), LOCATION))
    assert "{" not in sentence
    assert "see its log" not in sentence


@pytest.mark.parametrize(
    ("code", "status", "sentence"),
    [
        ("NoSuchBucket", 404, "there is no bucket bucket at http://server:8333; create it"),
        ("InvalidAccessKeyId", 403, "does not accept this node's credentials"),
        ("403", 403, "denies access to the bucket"),
        ("SomethingNew", 403, "denies access"),
        ("SlowDown", 503, "answers SlowDown; try again soon"),
        ("", 500, "answers 500; try again soon"),
        ("TooManyRequests", 429, "try again soon"),
        ("PermanentRedirect", 301, "SPREADTRAIN_S3_REGION"),
        ("Teapot", 418, "refused a request .Teapot."),
    ],
)
def test_an_answer_is_told_by_its_code_and_status(code: str, status: int, sentence: str) -> None:
    with pytest.raises(StoreError, match=sentence) as caught, translated(LOCATION, "k"):
        raise answer(code, status)
    assert not isinstance(caught.value, ArtifactNotFound)


@pytest.mark.parametrize(
    ("error", "is_away"),
    [
        (vendor.EndpointConnectionError(endpoint_url="http://server:8333"), True),
        (vendor.ReadTimeoutError(endpoint_url="http://server:8333"), True),
        (answer("SlowDown", 503), True),
        (answer("AccessDenied", 403), False),
        (answer("NoSuchBucket", 404), False),
        (vendor.NoCredentialsError(), False),
    ],
)
def test_a_server_that_is_away_is_told_from_one_that_refuses(
    error: Exception, is_away: bool
) -> None:
    assert isinstance(explained(error, LOCATION), StoreAway) is is_away


@pytest.mark.parametrize("code", ["NoSuchKey", "404"])
def test_a_missing_object_is_not_found_where_one_was_asked_for(code: str) -> None:
    with pytest.raises(ArtifactNotFound, match="no artifact a/b"), translated(LOCATION, "a/b"):
        raise answer(code, 404)
    assert not isinstance(explained(answer(code, 404), LOCATION), ArtifactNotFound)


def test_our_own_errors_pass_unchanged() -> None:
    with pytest.raises(StoreError, match="mine"), translated(LOCATION):
        raise StoreError("mine")
