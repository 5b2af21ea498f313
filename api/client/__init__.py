"""The Python client: ``Client(url).submit(spec).wait().samples(64)``; no torch, no Ray."""

from api.client.arrays import Interpolations, Reconstructions
from api.client.client import Client
from api.client.connection import DEFAULT_URL, Event
from api.client.errors import ApiError, ClientError, JobFailed, StudyFailed, Unreachable
from api.client.job import JobHandle
from api.client.study import StudyHandle

__all__ = [
    "DEFAULT_URL",
    "ApiError",
    "Client",
    "ClientError",
    "Event",
    "Interpolations",
    "JobFailed",
    "JobHandle",
    "Reconstructions",
    "StudyFailed",
    "StudyHandle",
    "Unreachable",
]
