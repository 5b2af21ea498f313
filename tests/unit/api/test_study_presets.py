"""Standing questions as studies: each can be submitted as it is, and holds to the protocol."""

import csv
import io
from typing import Any

import numpy as np
import pytest

from tests.unit.api.conftest import Quiet
from tests.unit.api.test_problems import problem

SCALE, KIND, LEARNED = (
    f"/trainer/{field}" for field in ("spread/scale", "spread/kind", "learned_spread")
)
NOISE = "/trainer/noise_variance"


def preset(quiet: Quiet, name: str, query: str = "") -> dict[str, Any]:
    answer = quiet.http.get(f"/v1/studies/presets/{name}?{query}")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def planned(quiet: Quiet, body: dict[str, Any]) -> dict[str, Any]:
    answer = quiet.http.post("/v1/studies?dry_run=true", json=body)
    assert answer.status_code == 200, answer.text
    plan: dict[str, Any] = answer.json()
    return plan


@pytest.mark.parametrize(
    "query",
    [
        "dataset=mnist-10k&trials=15",
        "dataset=digits&epochs=9&hidden=8&latent_dim=2",
        "dataset=two-moons&epochs=3&hidden=8,8&latent_dim=2",
        "dataset=digits&epochs=10&learned=false",
    ],
)
def test_spread_scale_can_be_submitted_and_has_nothing_to_be_wary_of_but_few_data(
    quiet: Quiet, query: str
) -> None:
    found = preset(quiet, "spread-scale", query)
    plan = planned(quiet, found["request"])
    # No rung before a third of the epochs, and no objective that depends on the noise. Digits are
    # too few for a reference.
    at = ["/spec/dataset/held_out_fraction"] if "digits" in query else []
    assert [one["pointer"] for one in plan["cautions"]] == at
    assert (plan["objections"], plan["is_overridden"]) == ([], False)
    request = plan["request"]
    epochs = request["spec"]["trainer"]["epochs"]
    assert request["scheduler"]["grace_epochs"] * 3 >= epochs
    assert request["scheduler"]["reduction_factor"] == 10
    assert request["spec"]["checkpoint_every_epochs"] == request["scheduler"]["grace_epochs"]
    assert request["spec"]["trainer"]["quality"]["samples"] == 5000
    assert request["spec"]["trainer"]["quality"]["at"] == "checkpoints"
    assert request["objective"] == {"metric": "kid_pca", "mode": "min"}
    assert request["space"][KIND]["choice"] == ["gaussian", "laplace"]
    assert "loguniform" in request["space"][SCALE]
    assert (LEARNED in request["space"]) == ("learned=false" not in query)
    assert [SCALE, KIND] in found["plots"]
    assert all(set(plot) <= set(request["space"]) for plot in found["plots"])


def test_spread_scale_holds_out_five_thousand_data_or_says_that_it_cannot(quiet: Quiet) -> None:
    whole = preset(quiet, "spread-scale", "dataset=mnist-10k")
    assert whole["request"]["spec"]["dataset"]["held_out_fraction"] == 0.5
    assert len(whole["notes"]) == 1
    few = preset(quiet, "spread-scale", "dataset=digits")
    assert "rests on 898 held-out data" in few["notes"][1]


@pytest.mark.parametrize(
    ("query", "features", "ranks"),
    [
        ("check=efficientnet_lite0_40", ["efficientnet_lite0_40"], "kid_pca"),
        ("features=efficientnet_lite0_40", ["efficientnet_lite0_40"], "kid_efficientnet_lite0_40"),
        (
            "features=efficientnet_lite0_320&check=efficientnet_lite0_40",
            ["efficientnet_lite0_320", "efficientnet_lite0_40"],
            "kid_efficientnet_lite0_320",
        ),
        (
            "features=efficientnet_lite0_40&check=efficientnet_lite0_40",
            ["efficientnet_lite0_40"],
            "kid_efficientnet_lite0_40",
        ),
    ],
)
def test_spread_scale_has_another_network_as_a_check_that_ranks_nothing(
    quiet: Quiet, query: str, features: list[str], ranks: str
) -> None:
    request = preset(quiet, "spread-scale", f"dataset=mnist-10k&{query}")["request"]
    assert request["spec"]["trainer"]["quality"]["features"] == features
    plan = planned(quiet, request)
    assert (plan["cautions"], plan["objections"]) == ([], [])
    assert plan["request"]["objective"]["metric"] == ranks


def test_ica_sigma_ranks_by_the_error_of_a_where_it_is_known(quiet: Quiet) -> None:
    found = preset(quiet, "ica-sigma", "low=0.1&high=1&trials=4&components=3")
    request = found["request"]
    assert request["objective"] == {"metric": "error_relative", "mode": "min"}
    assert request["space"][NOISE]["loguniform"] == pytest.approx([0.01, 1.0])
    assert request["spec"]["trainer"]["components"] == 3
    plan = planned(quiet, request)
    assert (plan["cautions"], plan["configurations"]) == ([], 4)
    assert planned(quiet, preset(quiet, "ica-sigma")["request"])["objections"] == []
    assert found["plots"] == [[NOISE]]


def test_ica_sigma_ranks_by_held_out_evidence_where_no_one_knows_a(quiet: Quiet) -> None:
    rows = io.StringIO()
    csv.writer(rows).writerows(np.random.default_rng(0).laplace(size=(200, 3)).tolist())
    put = quiet.http.put("/v1/datasets/sources", content=rows.getvalue().encode())
    assert put.status_code == 201, put.text
    found = preset(quiet, "ica-sigma", "dataset=sources")
    assert found["request"]["objective"] == {"metric": "held_out_log_evidence_nats", "mode": "max"}
    assert "one fixed scale" in found["notes"][1]
    assert planned(quiet, found["request"])["cautions"] == []


def test_the_address_of_the_presets_is_no_study(quiet: Quiet) -> None:
    answer = quiet.http.post("/v1/studies/presets")
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["Allow"] == "GET, HEAD"


def test_the_presets_are_listed_with_their_questions(quiet: Quiet) -> None:
    listed = quiet.http.get("/v1/studies/presets").json()["presets"]
    assert [one["name"] for one in listed] == ["spread-scale", "ica-sigma"]
    assert [one["title"][-1] for one in listed] == ["?", "?"]
    assert [one["links"]["self"] for one in listed] == [
        "/v1/studies/presets/spread-scale",
        "/v1/studies/presets/ica-sigma",
    ]


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ("spread-scale", "/query/dataset"),
        ("spread-scale?dataset=nothing", "/query/dataset"),
        ("spread-scale?dataset=No%20Name", "/query/dataset"),
        ("spread-scale?dataset=laplace-ica", "/query/dataset"),
        ("spread-scale?dataset=digits&epochs=2", "/query/epochs"),
        ("spread-scale?dataset=digits&hidden=0", "/query/hidden"),
        ("ica-sigma?dataset=digits", "/query/dataset"),
        ("ica-sigma?low=2&high=1", "/query/low"),
    ],
)
def test_options_that_make_no_study_are_refused(quiet: Quiet, path: str, pointer: str) -> None:
    found = problem(quiet.http.get(f"/v1/studies/presets/{path}"), 422, "invalid-query")
    assert found["errors"][0]["pointer"] == pointer
