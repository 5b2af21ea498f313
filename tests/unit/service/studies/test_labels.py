"""Tuned values as labels: short, and different where the values are."""

import json
from typing import Any

import pytest

from service.studies.labels import LETTERS, label, labels

LOW_RANK = {"covariance": {"kind": "low_rank", "rank": 20}, "every_epochs": 10, "noise_steps": 200}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        (True, "true"),
        (3, "3"),
        (0.123456, "0.1235"),
        ("laplace", "laplace"),
        ([400, 400], "[400, 400]"),
        ({"kind": "cosine", "final_fraction": 0.1}, "cosine"),
        (LOW_RANK, "covariance low_rank"),
        ({"rank": 2, "loading": 1}, "rank, loading"),
        ({}, "{}"),
        ("a" * 99, "a" * (LETTERS - 1) + "…"),
    ],
)
def test_a_value_is_told_in_few_letters(value: Any, text: str) -> None:
    assert label(value) == text


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([None, LOW_RANK, None], ["none", "covariance low_rank", "none"]),
        (
            [{"kind": "cosine", "final": 0.1}, {"kind": "cosine", "final": 0.5}],
            ["cosine, final 0.1", "cosine, final 0.5"],
        ),
        ([None, "none"], ["null", '"none"']),
        ([0.50001, 0.50002], ["0.50001", "0.50002"]),
        (["a" * 40, "b", "a" * 41], ["a" * 25 + "… (1)", "b", "a" * 25 + "… (3)"]),
    ],
)
def test_different_values_have_different_labels(values: list[Any], texts: list[str]) -> None:
    assert labels(values) == texts


def test_objects_that_differ_in_much_are_numbered() -> None:
    many = [dict.fromkeys(LOW_RANK, place) for place in range(9)]
    found = labels(many)
    assert len(set(found)) == len({json.dumps(value) for value in many})
    assert max(map(len, found)) <= LETTERS
