"""What a study's results show, as it is answered."""

from typing import Any

from api.bodies.base import Body
from api.bodies.studies import ObjectiveBody, Standing


class IntervalBody(Body):
    """A mean over fresh seeds and where it lies."""

    mean: float
    low: float | None
    """Lower end; null where one seed says nothing of it."""
    high: float | None
    """Upper end."""
    confidence: float
    """How surely the mean over all seeds lies between them."""
    seeds: int
    """How many the mean is over."""


class MeasuredBody(Body):
    """How the objective is measured, as the study declares it; null what does not apply."""

    metric: str
    extractor: str | None
    """The features in which samples are compared: ``pca``, or a network's."""
    samples: int | None
    """Samples of each model, and most held-out data, that are compared."""
    reference: str | None
    """The held-out data that they are compared with."""
    reference_digest: str | None
    """Content of the data set that these are a part of."""


class RankedBody(Body):
    """A configuration beside the best."""

    configuration: int
    values: dict[str, Any]
    """The tuned values by JSON pointer."""
    mean: float | None
    """Over fresh seeds; null where it was not confirmed."""
    by_seed: dict[str, float | None]
    """Its values on fresh seeds."""
    search_value: float | None
    """On the search's seeds; of those that were confirmed too good to be true."""


class ReversalsBody(Body):
    """How the order of configurations changes from one measure of them to another."""

    count: int
    """Configurations that have both."""
    pairs: int
    """Pairs of them that neither measure ties."""
    reversed_pairs: int
    """Pairs whose order changes."""
    gamma: float | None
    """Goodman and Kruskal's: 1 for the same order, −1 for the opposite; null without pairs."""
    best_was: int
    """The place, from 1, that the later best had before."""


class CheckBody(Body):
    """How another extractor orders the confirmed configurations."""

    metric: str
    means: dict[str, float]
    """Over fresh seeds, by configuration."""
    best: int
    """The configuration that it finds best."""
    agrees: bool
    """Whether it has the same best, and reverses no pair."""
    reversals: ReversalsBody


class BestBody(Body):
    """The best of a study, as far as it is known."""

    stage: Standing
    """``confirmed`` by fresh seeds; before that ``searching`` or ``confirming``, and
    ``unconfirmed`` where the study ended without."""
    message: str
    """What may be said, and what not."""
    objective: ObjectiveBody
    measured: MeasuredBody
    is_overridden: bool
    """Whether the guard was overridden, so that the metric may rank the noise and no model."""
    configuration: int | None
    """The best, or before confirmation the search's candidate; null without a result."""
    is_candidate: bool
    """Whether it is only that: chosen by the value that it is shown with."""
    values: dict[str, Any] | None
    """Its tuned values by JSON pointer."""
    interval: IntervalBody | None
    """Its mean on fresh seeds; null before confirmation."""
    search_value: float | None
    """Its value on the search's seeds, which chose it: too good to be true."""
    spec: dict[str, Any] | None
    """Its whole spec; {"spec": …} can be posted to /v1/jobs."""
    indistinguishable: list[RankedBody]
    """Configurations that cannot be told from the best, itself first; empty before confirmation."""
    confirmed: list[RankedBody]
    """All configurations with results on fresh seeds, the best first."""
    untested: list[int]
    """Configurations without a result that can be compared: failed, or stopped early."""
    checks: list[CheckBody]
    """The same order by other extractors, where trials have their metrics."""
    links: dict[str, str]
