"""What the service reaches over the network: Ray, a collector of spans, addresses of files."""

import secrets
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from service.checks.finding import Finding
from service.cluster.base import Capacity, ClusterDown, ClusterUnavailable
from service.cluster.ray_cluster import RayCluster
from service.settings import Settings, ray_environment
from workers.errors import TracingUnavailable
from workers.tracing import try_tracing

CONNECT_S = 5.0


class Startable(Protocol):
    """What is asked of a cluster here."""

    def start(self) -> None:
        """Start or join it; raises ClusterUnavailable."""
        ...

    def capacity(self) -> Capacity:
        """What it has; raises ClusterDown."""
        ...

    def close(self) -> None:
        """End or leave it."""
        ...


def own_ray(settings: Settings, folder: Path) -> Startable:
    """The Ray of the settings under a name of its own, so that it meets no running service's."""
    ray_environment(joining=bool(settings.ray_address))
    name = f"spreadtrain-check-{secrets.token_hex(8)}"
    return RayCluster(settings.ray_address, folder, settings.cpus, namespace=name)


def check_ray(
    settings: Settings, make: Callable[[Settings, Path], Startable] = own_ray
) -> Iterator[Finding]:
    """Join the cluster, or start a local Ray for a moment, and see what it has."""
    with tempfile.TemporaryDirectory(prefix="check-") as folder:
        cluster = make(settings, Path(folder))
        try:
            cluster.start()
            capacity = cluster.capacity()
        except (ClusterUnavailable, ClusterDown) as error:
            yield Finding("ray", "wrong", str(error))
            return
        finally:
            cluster.close()
    where = f"joined {settings.ray_address}" if settings.ray_address else "an own one starts"
    found = f"{where}: {capacity.cpus:g} cores, {capacity.gpus:g} GPUs"
    yield Finding("ray", "ok" if capacity.cpus else "wrong", found)
    if settings.ray_address and settings.artifacts.startswith("file://"):
        yield Finding(
            "ray: storage",
            "warning",
            "artifacts are in a folder, which every node of the cluster must see under the same "
            "path; S3 needs no such thing (SPREADTRAIN_ARTIFACTS_URI)",
        )


def check_tracing(settings: Settings) -> Iterator[Finding]:
    """Deliver no spans at all to where they would go."""
    if not settings.tracing:
        yield Finding("tracing", "ok", "off")
        return
    try:
        try_tracing(settings.tracing)
    except TracingUnavailable as error:
        yield Finding("tracing", "wrong", str(error))
    else:
        yield Finding("tracing", "ok", settings.tracing)


def check_addresses(settings: Settings) -> Iterator[Finding]:
    """Where users are sent for downloads, and where weights are."""
    if settings.s3_public_endpoint:
        yield _reached("public S3 endpoint", settings.s3_public_endpoint)
    weights = settings.fid_weights
    if "://" in weights:
        yield _reached("FID weights", weights)
    elif weights and not Path(weights).is_file():
        detail = (
            f"{weights} is no file here; it must be one on every node (SPREADTRAIN_FID_WEIGHTS)"
        )
        yield Finding("FID weights", "wrong", detail)
    elif weights:
        yield Finding("FID weights", "ok", weights)


def _reached(part: str, address: str) -> Finding:
    url = urlsplit(address)
    port = url.port or (443 if url.scheme == "https" else 80)
    where = f"{url.hostname} port {port}"
    try:
        socket.create_connection((url.hostname or "", port), CONNECT_S).close()
    except OSError as error:
        why = error.strerror or str(error)
        return Finding(part, "warning", f"{where} cannot be reached from here: {why}")
    return Finding(part, "ok", f"{where} answers")
