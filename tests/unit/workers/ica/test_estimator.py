import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import check_estimator

from tests.unit.workers.ica.drawing import X, Z, mixture
from workers.ica.estimator import SpreadICA


def test_it_keeps_all_of_scikit_learns_rules() -> None:
    results = check_estimator(SpreadICA(), on_fail="raise", on_skip=None)
    assert {result["status"] for result in results} <= {"passed", "skipped"}
    # array API input is checked by scikit-learn only where the environment asks for it
    skipped = {r["check_name"] for r in results if r["status"] == "skipped"}
    assert skipped <= {"check_array_api_input"}


def test_sources_go_there_and_back() -> None:
    rows, _ = mixture(2000)
    x = rows.numpy()
    ica = SpreadICA(Z, noise_variance=0.04, prior="laplace", random_state=0)
    sources = ica.fit_transform(x)
    assert sources.shape == (2000, Z)
    assert ica.mixing_.shape == (X, Z)
    assert ica.components_.shape == (Z, X)
    rest = ica.inverse_transform(sources) - x
    assert (rest**2).mean() == pytest.approx(0.04 * (X - Z) / X, rel=0.1)
    np.testing.assert_allclose(ica.components_ @ ica.mixing_, np.eye(Z), atol=1e-12)


def test_without_noise_sources_reconstruct_the_data() -> None:
    x = np.random.default_rng(0).laplace(size=(300, 4)) @ np.random.default_rng(1).normal(
        size=(4, 4)
    )
    ica = SpreadICA(random_state=0).fit(x)
    np.testing.assert_allclose(ica.inverse_transform(ica.transform(x)), x, atol=1e-9)
    assert ica.noise_variance_ == 0
    assert list(ica.get_feature_names_out()) == [f"spreadica{i}" for i in range(4)]


def test_too_few_iterations_are_warned_of() -> None:
    rows, _ = mixture()
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        SpreadICA(Z, noise_variance=0.04, max_iter=1, random_state=0).fit(rows.numpy())


def test_more_components_than_features_are_a_value_error() -> None:
    with pytest.raises(ValueError, match="ask for at most 6"):
        SpreadICA(7).fit(mixture()[0].numpy())


def test_an_unknown_prior_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="prior must be"):
        SpreadICA(2, prior="cauchy").fit(mixture()[0].numpy())  # type: ignore[arg-type]
