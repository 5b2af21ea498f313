"""Examples of what ``ica`` jobs are asked and answer, for the OpenAPI document."""

from typing import Any

ICA_REQUEST: dict[str, Any] = {
    "name": "five sources",
    "spec": {
        "dataset": {
            "kind": "laplace-ica",
            "dimensions": 10,
            "components": 5,
            "samples": 20_000,
            "noise_std": 0.2,
            "seed": 1,
        },
        "trainer": {"kind": "ica", "components": 5, "noise_variance": 0.04},
    },
}
_OF_CHECKPOINT = {"checkpoint": "00000012", "step": 12, "dimensions": 3, "components": 2}
_ERRORS = {"relative": 0.013, "frobenius": 0.016, "angle_degrees": 0.74, "amari": 0.008}
_NO_PARTS = {"weights": None, "means": None, "variances": None}

ICA_EXAMPLES: dict[str, dict[str, Any]] = {
    "MixingBody": {
        **_OF_CHECKPOINT,
        "mixing": [[1.01, -0.99], [0.98, 1.0], [-1.0, 1.02]],
        "fastica_mixing": [[1.02, -0.98], [0.97, 1.01], [-1.02, 1.03]],
        "true_mixing": [[1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]],
        "mean": [0.01, -0.02, 0.0],
        "noise_variance": 0.04,
        "priors": [
            {"kind": "laplace", "width": 0.014, **_NO_PARTS},
            {
                "kind": "bimodal",
                "width": None,
                "weights": [0.5, 0.5],
                "means": [-0.85, 0.85],
                "variances": [0.2775, 0.2775],
            },
        ],
        "log_evidence_nats": -3.61,
        "held_out_log_evidence_nats": -3.63,
        "errors": _ERRORS,
        "fastica_errors": {**_ERRORS, "angle_degrees": 0.93},
    },
    "UnmixingBody": {
        **_OF_CHECKPOINT,
        "unmixing": [[0.34, 0.33, -0.33], [-0.34, 0.33, 0.33]],
        "mean": [0.01, -0.02, 0.0],
    },
    "SourcesBody": {
        "checkpoint": "00000012",
        "step": 12,
        "n": 1,
        "mean": [[0.61, -0.27]],
        "variance": [[0.012, 0.013]],
        "rmse": 0.19,
    },
}
