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
    """Samples of each model that are compared."""
    reference_rows: int | None
    """Held-out data that they are compared with: as many, or all that there are; null as well where
    it is not known how many."""
    reference: str | None
    """What these are held out of."""
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
    """How another distance, or another extractor, orders the confirmed configurations."""

    metric: str
    means: dict[str, float]
    """Over fresh seeds, by configuration."""
    best: int
    """The configuration that it finds best."""
    agrees: bool
    """Whether it has the same best, and reverses no pair."""
    reversals: ReversalsBody


class StretchBody(Body):
    """A part of a schedule of the spread's scale."""

    from_epoch: int
    """The epoch at which it begins."""
    scale: float
    """Standard deviation of the noise, until the next one begins."""


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
    schedule: list[StretchBody] | None = None
    """Under ``pbt`` the answer: the scales that led to it, from the first epoch on, as a job with
    ``spec`` has them; null of other studies."""
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
    """The same order by each other distance, and by other extractors, where trials have their
    metrics."""
    shares: dict[str, float]
    """Precision, recall, density and coverage of the confirmed best, by metric, as means on fresh
    seeds: a small distance with a small recall is that of samples which are all alike. Empty before
    confirmation, and where trials do not measure them."""
    links: dict[str, str]


class AxisBody(Body):
    """A parameter of a curve."""

    pointer: str
    """JSON pointer into the spec."""
    has_levels: bool
    """Whether it has few values, each with its own mean; else the curve goes along it."""
    is_log: bool
    """Whether it is seen in its logarithm."""


class LevelBody(Body):
    """The mean of trials at some values."""

    values: dict[str, Any]
    """Of the parameters, by JSON pointer."""
    mean: float
    low: float | None
    """Lower end of its interval; null for a single trial."""
    high: float | None
    trials: int


class ProcessBody(Body):
    """A Gaussian process along one or two parameters."""

    where: dict[str, Any]
    """The value of the other parameter, where there is one with levels."""
    along: list[str]
    """JSON pointers of the parameters that it goes along."""
    places: list[list[float]]
    """Values along each of them."""
    mean: list[Any]
    """Its mean: a number for each place, or for two parameters a list for each of the first."""
    low: list[Any]
    """Lower ends of the mean's interval, in the same shape."""
    high: list[Any]
    """Upper ends."""
    noise: float
    """Standard deviation between trials at one place."""
    trials: int
    """Trials behind it."""


class PointBody(Body):
    """A trial in a curve."""

    trial: int
    configuration: int
    seed: int
    is_fresh: bool
    """Whether its seed is one of those that confirm."""
    values: dict[str, Any]
    """Of the parameters, by JSON pointer."""
    value: float


class RungBody(Body):
    """How the order of configurations after so many epochs differs from that at the end."""

    epoch: int
    reversals: ReversalsBody


class CurveBody(Body):
    """A metric against one or two tuned parameters, with its uncertainty."""

    metric: str
    mode: str | None
    """Whether less or more of it is better; null where that is not known."""
    measured: MeasuredBody
    parameters: list[AxisBody]
    confidence: float
    levels: list[LevelBody]
    """Where all parameters have few values; else empty."""
    processes: list[ProcessBody]
    """One for each value of a parameter with levels; else one, or none."""
    points: list[PointBody]
    """The trials that count: those that ran to their end and have the parameters."""
    stopped: int
    """Trials that have ended before, by a scheduler or by failing."""
    without: int
    """Trials that ran to their end and have not all of the parameters."""
    rungs: list[RungBody]
    """The order at epochs where trials are compared, against that at the end."""
    notes: list[str]
    """What to know, such as that ranks reverse."""


class FrontPointBody(Body):
    """A configuration by two metrics."""

    configuration: int
    values: dict[str, Any]
    search: list[float]
    """Both on the search's seeds."""
    fresh: list[float] | None
    """Both as means on fresh seeds; null where it was not confirmed."""


class ParetoBody(Body):
    """Two metrics against one another."""

    metrics: list[str]
    modes: list[str]
    front: list[int]
    """Configurations that none surpasses in both on the search's seeds, in the order of the first
    metric; the front of noisy values looks better than it is."""
    fresh_front: list[int]
    """The same by the means on fresh seeds."""
    points: list[FrontPointBody]


class ShareBody(Body):
    """How much one parameter matters."""

    pointer: str
    importance: float | None
    """Its share of 1 among all parameters of the trials that have it; null where too few have."""
    trials: int
    """Trials that have it."""


class ImportanceBody(Body):
    """How much each parameter matters, the most important first."""

    metric: str
    evaluator: str
    trials: int
    shares: list[ShareBody]


class LineBody(Body):
    """A trial in parallel coordinates."""

    trial: int
    configuration: int
    values: dict[str, Any]
    places: list[float | None]
    """Where it is on each axis, from 0 to 1; null where it has not the parameter."""
    value: float
    rank: int
    """Counts from 0, the best."""
    is_stopped: bool
    """Whether it did not run to its end, so that its value does not compare."""


class ParallelBody(Body):
    """Every trial as a line through its values."""

    metric: str
    parameters: list[AxisBody]
    lines: list[LineBody]


class SampleRowBody(Body):
    """Samples of one trial."""

    trial: int
    configuration: int
    job: str
    checkpoint: str
    """Id of the checkpoint that they are drawn from."""
    label: str
    """What is written beside the row in the picture."""
    samples: list[Any]
    """Nested lists of numbers."""


class StudySamplesBody(Body):
    """The same latents over the best trials, the best first."""

    n: int
    seed: int
    shape: list[int]
    """Of one row: n and the shape of a datum."""
    rows: list[SampleRowBody]
