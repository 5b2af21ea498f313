import pytest
import torch

from tests.unit.workers.ica.drawing import Z, mixture, random
from workers.errors import WorkerError
from workers.ica.failures import Reason, Unfit
from workers.ica.fit import run
from workers.ica.options import Options
from workers.ica.priors import Laplace


def spoiled(reason: Reason) -> tuple[torch.Tensor, Options]:
    rows, mixing = mixture(200)
    options = Options(Z, 0.04, Laplace())
    match reason:
        case "too_few_rows":
            return rows[:3], options
        case "too_many_components":
            return rows, Options(7, 0.04)
        case "constant_columns":
            rows[:, 1] = 3.0
            return rows, options
        case "rank_deficient":
            return rows[:, :2] @ random(2, 5), options
        case "collapsed_component":
            start = mixing.clone()
            start[:, 0] *= 1e-12
            return rows, Options(Z, 0.04, Laplace(), start=start)
        case "not_a_number":
            rows[7, 2] = float("nan")
            return rows, options


@pytest.mark.parametrize(
    "reason",
    [
        *("too_few_rows", "too_many_components", "constant_columns"),
        *("rank_deficient", "collapsed_component", "not_a_number"),
    ],
)
def test_every_failure_has_its_name_and_says_what_to_do(reason: Reason) -> None:
    rows, options = spoiled(reason)
    with pytest.raises(Unfit) as caught:
        run(rows, options)
    assert caught.value.reason == reason
    assert isinstance(caught.value, WorkerError)
    assert str(caught.value).endswith(".")


def test_data_that_overflow_are_not_numbers_either() -> None:
    rows, _ = mixture(200)
    with pytest.raises(Unfit) as caught:
        run(rows * 1e200, Options(Z))
    assert caught.value.reason == "not_a_number"
