"""The vendor's exceptions as ours: each says which thing is wrong and what to do about it.

botocore has one class for every answer of a server (ClientError, told apart by its code) and some
eighty for what happens on this side, which are few things in the end; FAMILIES sorts them.
"""

import contextlib
from collections.abc import Iterator, Mapping

import botocore.exceptions as vendor
import urllib3.exceptions

from workers.artifacts.s3.location import CREDENTIALS_HINT, S3Location
from workers.errors import ArtifactNotFound, StoreAway, StoreError

VENDOR_ERRORS = (
    vendor.BotoCoreError,
    vendor.ClientError,
    vendor.UndefinedModelAttributeError,
    urllib3.exceptions.HTTPError,
)

_UNREACHABLE = (
    "the S3 server {server} cannot be reached; check that it runs, its address "
    "(SPREADTRAIN_S3_ENDPOINT), and the network between"
)
_TIMED_OUT = "the S3 server {server} does not answer in time; check its load and the network"
_TLS = (
    "the S3 server {server} cannot be spoken to over TLS; check that SPREADTRAIN_S3_ENDPOINT "
    "begins with the right one of http and https, and that this node trusts the server's "
    "certificate (AWS_CA_BUNDLE)"
)
_PROXY = "the proxy to the S3 server {server} cannot be reached; check HTTP_PROXY and NO_PROXY"
_CREDENTIALS = f"there are no usable S3 credentials on this node: {CREDENTIALS_HINT}"
_BROKEN_OFF = "the connection to the S3 server {server} broke off; try again, and see its log"
_DAMAGED = "what the S3 server {server} sent was damaged on the way; try again"
_AWS_FILES = (
    "the AWS settings on this node (AWS_* variables, ~/.aws) cannot be used; correct or remove them"
)
_REGION = "the S3 region is not right; set SPREADTRAIN_S3_REGION to the bucket's"
_DEFECT = "boto3 refused the request before it was sent; check that its version is the required one"

# The nearest class in an exception's line of descent decides.
FAMILIES: Mapping[type[Exception], str] = {
    vendor.ConnectTimeoutError: _TIMED_OUT,
    vendor.ReadTimeoutError: _TIMED_OUT,
    vendor.SSLError: _TLS,
    vendor.ProxyConnectionError: _PROXY,
    vendor.InvalidProxiesConfigError: _PROXY,
    vendor.ConnectionError: _UNREACHABLE,
    vendor.ConnectionClosedError: _BROKEN_OFF,
    vendor.ResponseStreamingError: _BROKEN_OFF,
    vendor.IncompleteReadError: _BROKEN_OFF,
    vendor.HTTPClientError: _BROKEN_OFF,
    vendor.CapacityNotAvailableError: _TIMED_OUT,
    vendor.ChecksumError: _DAMAGED,
    vendor.FlexibleChecksumError: _DAMAGED,
    **dict.fromkeys(
        (
            vendor.NoCredentialsError,
            vendor.NoAuthTokenError,
            vendor.TokenRetrievalError,
            vendor.UnknownTokenProviderError,
            vendor.PartialCredentialsError,
            vendor.CredentialRetrievalError,
            vendor.UnknownCredentialError,
            vendor.MetadataRetrievalError,
            vendor.RefreshWithMFAUnsupportedError,
            vendor.SSOError,
            vendor.LoginError,
        ),
        _CREDENTIALS,
    ),
    **dict.fromkeys(
        (
            vendor.ProfileNotFound,
            vendor.ConfigParseError,
            vendor.ConfigNotFound,
            vendor.InvalidConfigError,
            vendor.InvalidIMDSEndpointError,
            vendor.InvalidIMDSEndpointModeError,
            vendor.InvalidRetryConfigurationError,
            vendor.InvalidS3UsEast1RegionalEndpointConfigError,
            vendor.InvalidSTSRegionalEndpointsConfigError,
            vendor.InvalidS3AddressingStyleError,
            vendor.InvalidDefaultsMode,
            vendor.InvalidChecksumConfigError,
            vendor.InvalidEndpointConfigurationError,
            vendor.InvalidEndpointDiscoveryConfigurationError,
            vendor.UnsupportedS3ConfigurationError,
            vendor.UnsupportedS3AccesspointConfigurationError,
            vendor.UnsupportedS3ControlConfigurationError,
            vendor.MissingDependencyException,
        ),
        _AWS_FILES,
    ),
    **dict.fromkeys(
        (
            vendor.UnknownRegionError,
            vendor.ServiceNotInRegionError,
            vendor.InvalidRegionError,
            vendor.BaseEndpointResolverError,
            vendor.EndpointProviderError,
        ),
        _REGION,
    ),
    **dict.fromkeys(
        (
            vendor.DataNotFoundError,
            vendor.ApiVersionNotFoundError,
            vendor.UnknownSignatureVersionError,
            vendor.UnsupportedSignatureVersionError,
            vendor.MissingParametersError,
            vendor.ValidationError,
            vendor.ParamValidationError,
            vendor.UnknownServiceStyle,
            vendor.PaginationError,
            vendor.OperationNotPageableError,
            vendor.UnseekableStreamError,
            vendor.WaiterError,
            vendor.WaiterConfigError,
            vendor.InvalidExpressionError,
            vendor.UnknownClientMethodError,
            vendor.InvalidDNSNameError,
            vendor.InvalidHostLabelError,
            vendor.UnsupportedS3ArnError,
            vendor.UnsupportedS3ControlArnError,
            vendor.UnsupportedOutpostResourceError,
            vendor.StubResponseError,
            vendor.MD5UnavailableError,
            vendor.AwsChunkedWrapperError,
            vendor.UnsupportedServiceProtocolsError,
            vendor.UndefinedModelAttributeError,
        ),
        _DEFECT,
    ),
    urllib3.exceptions.HTTPError: _BROKEN_OFF,
}

_WRONG_KEYS = (
    "the S3 server {server} does not accept this node's credentials ({code}); " + CREDENTIALS_HINT
)
_NO_BUCKET = (
    "there is no bucket {bucket} at {server}; create it, or correct SPREADTRAIN_ARTIFACTS_URI"
)
_DENIED = (
    "the S3 server {server} denies access to the bucket {bucket} ({code}); check the credentials "
    "of this node, and that they may read, write, list and delete there"
)
_BUSY = "the S3 server {server} answers {code}; try again soon, and see its log"

CODES: Mapping[str, str] = {
    "NoSuchBucket": _NO_BUCKET,
    "InvalidBucketName": _NO_BUCKET,
    **dict.fromkeys(
        (
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "InvalidToken",
            "ExpiredToken",
            "TokenRefreshRequired",
            "InvalidSecurity",
            "NotSignedUp",
            "AuthFailure",
            "401",
        ),
        _WRONG_KEYS,
    ),
    **dict.fromkeys(("AccessDenied", "AllAccessDisabled", "AccountProblem", "403"), _DENIED),
    **dict.fromkeys(
        (
            "AuthorizationHeaderMalformed",
            "PermanentRedirect",
            "TemporaryRedirect",
            "IllegalLocationConstraintException",
            "301",
            "307",
        ),
        _REGION,
    ),
    "RequestTimeTooSkewed": "this node's clock and the S3 server's differ; set them right",
    "EntityTooLarge": "the S3 server {server} takes no object of this size ({code})",
    "BadDigest": _DAMAGED,
    "XAmzContentSHA256Mismatch": _DAMAGED,
    **dict.fromkeys(
        ("QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "507"),
        "the S3 server {server} is full ({code}); make room",
    ),
}


_AWAY = (_UNREACHABLE, _TIMED_OUT, _PROXY, _BROKEN_OFF, _BUSY)


def explained(error: Exception, location: S3Location, key: str | None = None) -> StoreError:
    """The vendor's error as ours; ``key`` is the object's where one was asked for."""
    if isinstance(error, vendor.ClientError):
        return _refusal(error, location, key)
    template = next(FAMILIES[kind] for kind in type(error).__mro__ if kind in FAMILIES)
    return _kind(template)(template.format(server=location.server))


def _refusal(error: vendor.ClientError, location: S3Location, key: str | None) -> StoreError:
    code, status = code_of(error), status_of(error)
    if key is not None and (code in ("NoSuchKey", "404") or (status == 404 and code not in CODES)):
        return ArtifactNotFound(f"there is no artifact {key}")
    template = CODES.get(code)
    if template is None and status in (401, 403):
        template = _DENIED
    if template is None and (status >= 500 or status == 429):
        template = _BUSY
    if template is None:
        template = "the S3 server {server} refused a request ({code}); see its log"
    return _kind(template)(
        template.format(server=location.server, bucket=location.bucket, code=code or status)
    )


def _kind(template: str) -> type[StoreError]:
    """Whether the server is away, or something is wrong that no waiting mends."""
    return StoreAway if template in _AWAY else StoreError


def code_of(error: vendor.ClientError) -> str:
    """The server's word for what is wrong; the status where it had none."""
    return str(error.response.get("Error", {}).get("Code", "")) or str(status_of(error))


def status_of(error: vendor.ClientError) -> int:
    """The HTTP status of the server's answer, 0 where it is not known."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def no_bucket(location: S3Location) -> StoreError:
    """What to say of a bucket that is not there."""
    return StoreError(_NO_BUCKET.format(server=location.server, bucket=location.bucket))


def is_about_access(error: vendor.ClientError) -> bool:
    """Whether the server refused who asks, and not what was asked."""
    return CODES.get(code_of(error)) in (_WRONG_KEYS, _DENIED, _REGION)


@contextlib.contextmanager
def translated(location: S3Location, key: str | None = None) -> Iterator[None]:
    """Raise StoreError, or ArtifactNotFound for a missing key, in place of the vendor's error."""
    try:
        yield
    except VENDOR_ERRORS as error:
        raise explained(error, location, key) from error
