from collections.abc import Iterator

import pytest

from service.cluster.base import Cluster
from service.cluster.inline import InlineCluster
from service.cluster.ray_cluster import RayCluster


@pytest.fixture
def ray_cluster(one_ray: RayCluster) -> Iterator[RayCluster]:
    """The file's own Ray, ``one_ray``."""
    yield one_ray
    one_ray.tend(frozenset())  # a test that failed half-way must not take the cores of the next


@pytest.fixture(params=["inline", "ray"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Two cores, within this process and on Ray."""
    if request.param == "ray":
        yield request.getfixturevalue("ray_cluster")
    else:
        inline = InlineCluster(cpus=2)
        yield inline
        inline.close()
