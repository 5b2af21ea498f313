"""The connection to a server."""

from typing import Any

import boto3.session
from botocore.config import Config

import workers
from workers.artifacts.s3.credentials import rereading_session
from workers.artifacts.s3.errors import translated
from workers.artifacts.s3.location import S3Location

CONNECT_TIMEOUT_S = 5
PROMPT_TIMEOUT_S = 7  # a small request that is tried three times ends within half a minute
PATIENT_TIMEOUT_S = 30  # what is large keeps a server busy before it answers
ATTEMPTS = 3  # of one request
CREDENTIALS_S = 60.0  # so old may be what is known of this node's credentials
CONNECTIONS = 50  # the web framework runs at most 40 handlers in threads
_ANY_REGION = "us-east-1"  # what servers take that have no regions


def begin(location: S3Location) -> boto3.session.Session:
    """A session for the clients of one store; raises StoreError.

    boto3's default one belongs to the whole process. Credentials come from boto3's own chain on
    this node, and are read again now and then.
    """
    with translated(location):
        return boto3.session.Session(botocore_session=rereading_session(CREDENTIALS_S))


def connect(
    session: boto3.session.Session,
    location: S3Location,
    endpoint: str,
    silence_s: float | None = None,
) -> Any:
    """A client for many threads, which connects at its first request; raises StoreError.

    ``silence_s`` is how long the server may be silent, ``PATIENT_TIMEOUT_S`` if it is not given.
    No request hangs: times and repetitions are bounded.
    """
    with translated(location):
        return session.client(
            "s3",
            endpoint_url=endpoint or None,
            region_name=location.region or session.region_name or _ANY_REGION,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=PATIENT_TIMEOUT_S if silence_s is None else silence_s,
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                max_pool_connections=CONNECTIONS,
                ignore_configured_endpoint_urls=True,  # it is the settings' to name it
                # Many servers know no checksums; where one proves to, they are sent by name.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                user_agent_extra=f"spreadtrain/{workers.__version__}",
            ),
        )
