"""SpreadICA: the fit as a scikit-learn estimator."""

import warnings
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from workers.ica.failures import Unfit
from workers.ica.fit import run
from workers.ica.options import Options
from workers.ica.priors import Laplace, Prior, bimodal, logistic, student_t
from workers.ica.results import Fitted
from workers.ica.sources import infer

_RANK = 1e-9

PriorName = Literal["auto", "laplace", "logistic", "student_t", "bimodal"]


class SpreadICA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Linear ICA with Gaussian noise, x = Az + mean + γ·N(0, I), by spread EM.

    ``n_components`` None takes the data's rank. ``noise_variance`` is γ², None to estimate it
    (which needs fewer components than features; else there is none). After ``fit``: ``mixing_``
    (features, components), ``components_`` its pseudo-inverse, ``mean_``, ``noise_variance_``,
    ``log_evidence_`` in nats a sample, ``n_iter_``, ``warnings_``.
    """

    def __init__(
        self,
        n_components: int | None = None,
        *,
        noise_variance: float | None = None,
        prior: PriorName = "auto",
        start: Literal["fastica", "random"] = "fastica",
        tol: float = 1e-6,
        max_iter: int = 300,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
        self.noise_variance = noise_variance
        self.prior = prior
        self.start = start
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: None = None) -> Self:  # noqa: N803
        """Decompose ``X`` (samples, features); raises ValueError where that cannot be."""
        rows = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        options = Options(
            components=self.n_components or _rank(rows),
            noise_variance=self.noise_variance,
            prior=_prior_of(self.prior),
            start=self.start,
            tolerance=self.tol,
            max_iterations=self.max_iter,
            seed=seed,
        )
        try:
            fitted = run(_tensor(rows), options)
        except Unfit as failure:
            raise ValueError(str(failure)) from failure
        if not fitted.has_converged:
            warnings.warn(
                f"The residual is {fitted.residual:.1e} after {fitted.iterations} iterations;"
                " raise max_iter or tol.",
                ConvergenceWarning,
                stacklevel=2,
            )
        self._keep(fitted)
        return self

    def _keep(self, fitted: Fitted) -> None:
        self._fitted = fitted
        self.mixing_: NDArray[np.float64] = fitted.mixing.numpy()
        self.components_ = np.linalg.pinv(self.mixing_)
        self.mean_: NDArray[np.float64] = fitted.mean.numpy()
        self.noise_variance_ = fitted.noise_variance
        self.log_evidence_ = fitted.log_evidence
        self.n_iter_ = fitted.iterations
        self.warnings_ = fitted.warnings

    @property
    def _n_features_out(self) -> int:
        return int(self.components_.shape[0])

    def transform(self, X: ArrayLike) -> NDArray[np.floating]:  # noqa: N803
        """Posterior means of the sources, (samples, components)."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        means = infer(_tensor(rows), self._fitted).mean.numpy()
        found: NDArray[np.floating] = means.astype(rows.dtype)
        return found

    def inverse_transform(self, X: ArrayLike) -> NDArray[np.float64]:  # noqa: N803
        """The data (samples, features) that sources (samples, components) make without noise."""
        check_is_fitted(self)
        found: NDArray[np.float64] = np.asarray(X) @ self.mixing_.T + self.mean_
        return found


def _tensor(rows: NDArray[np.floating]) -> Tensor:
    # torch warns of arrays that may not be written to, such as maps of files
    return torch.from_numpy(np.require(rows, requirements=["C", "W"]))


def _rank(rows: NDArray[np.floating]) -> int:
    centred = rows - rows.mean(0)
    values = np.linalg.svd(centred.astype(np.float64), compute_uv=False)
    return max(1, int((values**2 > _RANK * values[0] ** 2).sum()))


def _prior_of(name: PriorName) -> Prior | None:
    named = {"laplace": Laplace(), "logistic": logistic(), "student_t": student_t(5)}
    if name == "auto":
        return None
    if name == "bimodal":
        return bimodal()
    if name not in named:
        raise ValueError(f"prior must be auto, laplace, logistic, student_t or bimodal: {name!r}")
    return named[name]
