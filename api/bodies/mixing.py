"""What ``ica`` jobs have found, as it is answered."""

from api.bodies.base import Body


class PriorBody(Body):
    """The density of one source: a Laplace, or a mixture of Gaussians."""

    kind: str
    """laplace, logistic, student_t, bimodal, gaussian, or mixture, which was fitted to it."""
    width: float | None
    """Of a Laplace: the standard deviation of the noise that softens its peak."""
    weights: list[float] | None
    """Of a mixture: the weights of its parts."""
    means: list[float] | None
    """Of a mixture: the means of its parts."""
    variances: list[float] | None
    """Of a mixture: the variances of its parts."""


class ErrorsBody(Body):
    """How far an estimate is from the true mixing matrix, its columns ordered and signed as those
    are."""

    relative: float
    """Mean of |estimate − A|/|A| over the entries."""
    frobenius: float
    """‖estimate − A‖/‖A‖."""
    angle_degrees: float
    """Mean angle between the columns."""
    amari: float
    """Amari distance, from 0 to 1; free of scale."""


class _OfCheckpoint(Body):
    checkpoint: str
    """Id of the checkpoint it comes from."""
    step: int
    dimensions: int
    """X, the length of a datum."""
    components: int
    """Z, the number of sources."""


class MixingBody(_OfCheckpoint):
    """The fitted model x = Az + mean + noise."""

    mixing: list[list[float]]
    """A: a row for each dimension, a column for each source."""
    fastica_mixing: list[list[float]]
    """The answer of scikit-learn's FastICA for the same data, after principal components."""
    true_mixing: list[list[float]] | None
    """The A that the data were drawn with; null where it is not known."""
    mean: list[float]
    """Mean of the data."""
    noise_variance: float
    """Variance of the noise in each dimension."""
    priors: list[PriorBody]
    """The density of each source."""
    log_evidence_nats: float | None
    """Mean log density of the training data."""
    held_out_log_evidence_nats: float | None
    """Mean log density of data that the fit has not seen; null before the end of the fit."""
    errors: ErrorsBody | None
    """Errors of ``mixing``; null where the truth is not known."""
    fastica_errors: ErrorsBody | None
    """Errors of ``fastica_mixing``."""


class UnmixingBody(_OfCheckpoint):
    """The pseudo-inverse of the mixing matrix."""

    unmixing: list[list[float]]
    """W = (AᵀA)⁻¹Aᵀ: a row for each source, a column for each dimension."""
    mean: list[float]
    """Mean of the data, to be taken off before."""


class SourcesBody(Body):
    """The sources behind posted data."""

    checkpoint: str
    """Id of the checkpoint they come from."""
    step: int
    n: int
    """Number of data."""
    mean: list[list[float]]
    """E[z|x] of each datum, a number for each source."""
    variance: list[list[float]]
    """Var[z|x] of each datum; 0 without noise."""
    rmse: float
    """Root of the mean square of x − (A·E[z|x] + mean)."""
