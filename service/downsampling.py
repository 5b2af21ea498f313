"""Fewer points for a curve, such that it looks the same.

Largest triangle three buckets (S. Steinarsson, *Downsampling Time Series for Visual
Representation*, 2013): the first and the last point stay; the points between fall into buckets of
equal size, and of each stays the one that spans the largest triangle with the point kept before it
and the mean of the next bucket. A peak of the points that are given stays a peak, and no value is
made up.
"""

from collections.abc import Sequence
from itertools import pairwise

from service.jobs import MetricPoint


def downsample(points: Sequence[MetricPoint], max_points: int) -> list[MetricPoint]:
    """At most ``max_points`` (at least 2) of the points, in their order."""
    if max_points < 2:
        raise ValueError(f"a curve needs its two ends, not {max_points} point(s)")
    if len(points) <= max_points:
        return list(points)
    inner, buckets = len(points) - 2, max_points - 2
    # Buckets of the inner points, and the last point as a bucket of its own.
    edges = [1 + inner * i // buckets for i in range(buckets)] if buckets else []
    edges += [len(points) - 1, len(points)]
    kept = [points[0]]
    for (begin, end), (_, next_end) in pairwise(pairwise(edges)):
        ahead = points[end:next_end]
        step = sum(point.step for point in ahead) / len(ahead)
        value = sum(point.value for point in ahead) / len(ahead)
        kept.append(_farthest(kept[-1], points[begin:end], step, value))
    return [*kept, points[-1]]


def _farthest(
    before: MetricPoint, bucket: Sequence[MetricPoint], step: float, value: float
) -> MetricPoint:
    """The point with the largest triangle; the first of them where a value is not a number."""

    def doubled_area(point: MetricPoint) -> float:
        return abs(
            (before.step - step) * (point.value - before.value)
            - (before.step - point.step) * (value - before.value)
        )

    return max(bucket, key=doubled_area)
