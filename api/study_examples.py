"""Examples of studies for the OpenAPI document."""

from typing import Any

_AT = "2026-01-02T03:04:05Z"
_ID = "study-5f0c2b9e6f5a4d7c"
_STUDY = f"/v1/studies/{_ID}"
_JOB = "job-91d3a06e2f7b4c58"
_KIND, _SCALE = "/trainer/spread/kind", "/trainer/spread/scale"
_METRIC = "kid_pca"

STUDY_REQUEST: dict[str, Any] = {
    "name": "which noise",
    "spec": {
        "dataset": {"name": "mnist-10k", "held_out_fraction": 0.5},
        "trainer": {"kind": "delta_vae", "epochs": 60, "quality": {"samples": 5000}},
        "checkpoint_every_epochs": 20,
    },
    "space": {
        _KIND: {"choice": ["gaussian", "laplace"]},
        _SCALE: {"loguniform": [0.05, 1.0]},
    },
    "objective": {"metric": "kid", "mode": "min"},
    "search": {"kind": "tpe"},
    "scheduler": {"kind": "asha", "grace_epochs": 20},
    "budget": {"trials": 27, "max_wall_s": 3600},
    "concurrency": 2,
    "seeds": [0],
}
_CAUTIONS = [
    {
        "pointer": "/budget/max_wall_s",
        "message": "bounds the search alone; the confirmation comes on top: up to 15 trial(s) on "
        "fresh seeds of at most 60 epochs each",
    }
]
_VALUES = {_KIND: "laplace", _SCALE: 0.41}
_NONE = {"queued": 0, "running": 0, "paused": 0, "succeeded": 0, "failed": 0, "cancelled": 0}
_SUMMARY: dict[str, Any] = {
    "id": _ID,
    "name": "which noise",
    "state": "running",
    "reason": "searching",
    "message": "The search goes on.",
    "cancel_requested": False,
    "pause_requested": False,
    "owner": "ana",
    "is_overridden": False,
    "objective": {"metric": _METRIC, "mode": "min"},
    "second_objective": None,
    "tuned": [_KIND, _SCALE],
    "searcher": "tpe",
    "scheduler": "asha",
    "trainer": "delta_vae",
    "dataset": "mnist-10k",
    "trials": 9,
    "driver": 1,
    "version": 3,
    "created_at": _AT,
    "updated_at": _AT,
    "ended_at": None,
    "links": {"self": _STUDY, "best": f"{_STUDY}/best"},
}
_BODY: dict[str, Any] = {
    **_SUMMARY,
    "progress": {
        "configurations": 9,
        "search": {**_NONE, "running": 2, "succeeded": 7},
        "confirmation": _NONE,
        "results": 19,
        "epochs": 380,
        "trials_left": 18,
        "searched_s": 412.5,
        "epochs_left": None,
        "wall_left_s": None,
    },
    "best_so_far": {
        "configuration": 4,
        "values": _VALUES,
        "value": 0.0121,
        "confirmed": False,
    },
    "objections": [],
    "cautions": _CAUTIONS,
    "request": STUDY_REQUEST,
}
TRIAL: dict[str, Any] = {
    "number": 5,
    "configuration": 4,
    "values": _VALUES,
    "seed": 0,
    "phase": "search",
    "job": _JOB,
    "state": "succeeded",
    "reason": "completed",
    "message": "Trained to the end.",
    "epoch": 60,
    "metrics": {_METRIC: 0.0121},
    "is_whole": True,
    "created_at": _AT,
    "ended_at": _AT,
    "links": {"job": f"/v1/jobs/{_JOB}", "study": _STUDY},
}
_RANKED: dict[str, Any] = {
    "configuration": 4,
    "values": _VALUES,
    "mean": 0.0131,
    "by_seed": {"1": 0.0128, "2": 0.0134},
    "search_value": 0.0121,
}
REVERSALS: dict[str, Any] = {
    "count": 3,
    "pairs": 3,
    "reversed_pairs": 1,
    "gamma": 1 / 3,
    "best_was": 2,
}
BEST: dict[str, Any] = {
    "stage": "confirmed",
    "message": "The best by kid_pca on fresh seeds that chose nothing. It cannot be told from "
    "those listed beside it.",
    "objective": {"metric": _METRIC, "mode": "min"},
    "measured": {
        "metric": _METRIC,
        "extractor": "pca",
        "samples": 5000,
        "reference_rows": 5000,
        "reference": "held-out data of mnist-10k",
        "reference_digest": "sha256:" + "3a" * 32,
    },
    "is_overridden": False,
    "configuration": 4,
    "is_candidate": False,
    "values": _VALUES,
    "schedule": None,
    "interval": {"mean": 0.0131, "low": 0.0093, "high": 0.0169, "confidence": 0.95, "seeds": 2},
    "search_value": 0.0121,
    "spec": STUDY_REQUEST["spec"],
    "indistinguishable": [_RANKED],
    "confirmed": [_RANKED],
    "untested": [7],
    "checks": [
        {
            "metric": "kid_efficientnet_lite0_40",
            "means": {"4": 0.31, "2": 0.29, "6": 0.36},
            "best": 2,
            "agrees": False,
            "reversals": REVERSALS,
        }
    ],
    "shares": {"precision_pca": 0.97, "recall_pca": 0.02},
    "links": {"trials": f"{_STUDY}/trials", "curve": f"{_STUDY}/curve"},
}
_AXES = [
    {"pointer": _KIND, "has_levels": True, "is_log": False},
    {"pointer": _SCALE, "has_levels": False, "is_log": True},
]
CURVE: dict[str, Any] = {
    "metric": _METRIC,
    "mode": "min",
    "measured": BEST["measured"],
    "parameters": _AXES,
    "confidence": 0.95,
    "levels": [],
    "processes": [
        {
            "where": {_KIND: "laplace"},
            "along": [_SCALE],
            "places": [[0.05, 1.0]],
            "mean": [0.021, 0.034],
            "low": [0.013, 0.025],
            "high": [0.029, 0.043],
            "noise": 0.0011,
            "trials": 12,
        }
    ],
    "points": [
        {
            "trial": 5,
            "configuration": 4,
            "seed": 0,
            "is_fresh": False,
            "values": _VALUES,
            "value": 0.0121,
        }
    ],
    "stopped": 15,
    "without": 0,
    "rungs": [{"epoch": 20, "reversals": REVERSALS}],
    "notes": [
        "Ranks reverse: after 20 epochs 1 of 3 pairs are in another order than at the end. "
        "The best at the end was number 2 of 3 then."
    ],
}
PARETO: dict[str, Any] = {
    "metrics": [_METRIC, "recall_pca"],
    "modes": ["min", "max"],
    "front": [4, 2],
    "fresh_front": [4],
    "points": [
        {
            "configuration": 4,
            "values": _VALUES,
            "search": [0.0121, 0.61],
            "fresh": [0.0131, 0.6],
        }
    ],
}
IMPORTANCE: dict[str, Any] = {
    "metric": _METRIC,
    "evaluator": "ped_anova",
    "trials": 12,
    "shares": [
        {"pointer": _SCALE, "importance": 0.87, "trials": 12},
        {"pointer": _KIND, "importance": 0.13, "trials": 12},
    ],
}
PARALLEL: dict[str, Any] = {
    "metric": _METRIC,
    "parameters": _AXES,
    "lines": [
        {
            "trial": 5,
            "configuration": 4,
            "values": _VALUES,
            "places": [1.0, 0.702],
            "value": 0.0121,
            "rank": 0,
            "is_stopped": False,
        }
    ],
}
SAMPLES: dict[str, Any] = {
    "n": 2,
    "seed": 0,
    "shape": [2, 2],
    "rows": [
        {
            "trial": 5,
            "configuration": 4,
            "job": _JOB,
            "checkpoint": "00005400",
            "label": "4: kid_pca 0.0121  kind laplace, scale 0.41",
            "samples": [[0.98, 0.17], [-0.34, 0.94]],
        }
    ],
}
PRESET: dict[str, Any] = {
    "name": "spread-scale",
    "title": "How much of which noise?",
    "request": STUDY_REQUEST,
    "plots": [[_SCALE, _KIND]],
    "notes": [
        "No trial is stopped before epoch 20, a third of all: early ranks of noises reverse."
    ],
}
STUDY_EXAMPLES: dict[str, Any] = {
    "StudyBody": _BODY,
    "StudyIntentBody": {"intent": "paused", "study": {**_BODY, "pause_requested": True}},
    "StudyPageBody": {"studies": [_SUMMARY], "next_cursor": None},
    "PresetBody": PRESET,
    "PresetList": {
        "presets": [
            {
                "name": "spread-scale",
                "title": "How much of which noise?",
                "description": "A δ-VAE with Gaussian and Laplace noise of any scale, learned or "
                "not, ranked by KID.",
                "links": {"self": "/v1/studies/presets/spread-scale"},
            }
        ]
    },
    "BestBody": BEST,
    "StudySamplesBody": SAMPLES,
    "CurveBody": CURVE,
    "ParetoBody": PARETO,
    "ImportanceBody": IMPORTANCE,
    "ParallelBody": PARALLEL,
    "TrialPage": {"trials": [TRIAL], "next_cursor": None},
    "StudyPlanBody": {
        "request": STUDY_REQUEST,
        "searcher": "tpe",
        "scheduler": "asha",
        "configurations": 27,
        "trials": 27,
        "confirmation_trials": 15,
        "epochs": 2520,
        "cpus": 2,
        "gpus": 0,
        "memory_bytes": 840_000_000,
        "storage_bytes": 3_990_000_000,
        "duration_s": 960.0,
        "core_s": 1890.0,
        "basis": "Rests on the pace of 5 attempt(s) like a trial of the base spec, without what "
        "measuring quality takes; trials that are stopped early take less.",
        "waits_for": "nothing: it would start at once",
        "metrics": ["frechet_pca", "sliced_wasserstein_pca"],
        "is_overridden": False,
        "objections": [],
        "cautions": _CAUTIONS,
    },
}
