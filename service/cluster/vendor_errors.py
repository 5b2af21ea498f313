"""Ray's exceptions as ours."""

from collections.abc import Iterator
from contextlib import contextmanager

from ray.exceptions import RayError

from service.cluster.base import ClusterDown


@contextmanager
def vendor_errors() -> Iterator[None]:
    """What Ray raises, as ClusterDown."""
    try:
        yield
    except (RayError, ConnectionError, RuntimeError, OSError) as error:
        raise ClusterDown(f"Ray does not answer: {type(error).__name__}") from error
