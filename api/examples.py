"""One example of each answer, for the OpenAPI document."""

from typing import Any

from api.ica_examples import ICA_EXAMPLES
from api.study_examples import STUDY_EXAMPLES

_AT = "2026-01-02T03:04:05Z"
_JOB = "/v1/jobs/job-5f0c2b9e6f5a4d7c"
_DIGEST = "sha256:" + "3a" * 32

SPEC: dict[str, Any] = {
    "kind": "train",
    "version": 1,
    "seed": 0,
    "dataset": {"kind": "named", "name": "mnist-10k", "digest": _DIGEST},
    "trainer": {
        "kind": "delta_vae",
        "spread": {"kind": "laplace", "scale": 0.5},
        "network": {"kind": "mlp", "hidden": [400, 400], "latent_dim": 64},
        "epochs": 60,
        "batch_size": 100,
    },
}
PAPER_REQUEST: dict[str, Any] = {
    "name": "figure 4a, first tenth",
    "spec": {
        "trainer": {
            "kind": "paper",
            "figure": "4a",
            "scale": "paper",
            "repetitions": 1,
            "first_repetition": 0,
        }
    },
}
# The network and the training of the paper's CelebA pictures.
CELEBA_REQUEST: dict[str, Any] = {
    "name": "celeba as in the paper",
    "spec": {
        "dataset": {"name": "celeba", "held_out_fraction": 0.0987},
        "trainer": {
            "kind": "delta_vae",
            "spread": {"kind": "gaussian", "scale": 0.5},
            "network": {
                "kind": "conv",
                "channels": [128, 256, 512, 1024],
                "kernel_size": 5,
                "batch_norm": True,
                "latent_dim": 100,
            },
            "optimizer": {"kind": "adam", "learning_rate": 0.0001},
            "epochs": 200,
            "batch_size": 100,
        },
    },
}
CELEBA_DESCRIPTION = (
    "Half or a quarter of each of the channels makes a smaller network of the same form, as "
    "[64, 128, 256, 512]. Ask for a GPU with spec.resources.gpus_per_worker."
)
REQUEST: dict[str, Any] = {"name": "first light", "labels": {"team": "a"}, "spec": SPEC}
_SUMMARY: dict[str, Any] = {
    "id": "job-5f0c2b9e6f5a4d7c",
    "name": "first light",
    "labels": {"team": "a"},
    "priority": 0,
    "state": "running",
    "reason": "training",
    "message": "Training.",
    "cancel_requested": False,
    "pause_requested": False,
    "trainer": "delta_vae",
    "dataset": "mnist-10k",
    "progress": {"step": 540, "total_steps": 5400, "fraction": 0.1, "epoch": 6.0, "eta_s": 41.0},
    "parent": None,
    "study": None,
    "owner": "ana",
    "spec_digest": _DIGEST,
    "version": 3,
    "created_at": _AT,
    "updated_at": _AT,
    "ended_at": None,
    "links": {"self": _JOB, "samples": f"{_JOB}/samples"},
}
_ATTEMPT = {
    "number": 1,
    "reason": None,
    "message": None,
    "host": "worker-1",
    "pid": 4711,
    "resumed_from_step": None,
    "created_at": _AT,
    "started_at": _AT,
    "first_step_at": _AT,
    "ended_at": None,
}
_BASIS = "Rests on the pace of 1 running job(s); jobs that end early let it start sooner."
_BODY = {
    **_SUMMARY,
    "limits": {"max_wall_s": None, "max_attempts": 3},
    "retention": {"succeeded_s": None, "failed_s": 604_800.0, "cancelled_s": None},
    "expires_at": None,
    "queue": None,
    "attempts": [_ATTEMPT],
    "forks": ["job-91d3a06e2f7b4c58"],
    "spec": SPEC,
}
_OTHER = "job-91d3a06e2f7b4c58"
_EXPLANATION = {
    "job": "job-5f0c2b9e6f5a4d7c",
    "state": "queued",
    "reason": "waiting_for_resources",
    "since": _AT,
    "headline": "It is the next one and asks for 1 core(s); 0 of 1 core(s) are free. "
    f"{_OTHER} holds 1 core(s) (41 s left). It starts in about 41 s.",
    "rule": {
        "name": "capacity",
        "sentence": "An attempt starts when all that it asks for is free at once; running jobs "
        "keep what they hold to their end.",
    },
    "changes": [
        {
            "sentence": f"Pause {_OTHER}, which goes on later.",
            "command": f"spreadtrain pause {_OTHER}",
            "request": {"method": "POST", "path": f"/v1/jobs/{_OTHER}/pause", "body": None},
        }
    ],
    "resources": {
        "asked": {"workers": 1, "cpus_per_worker": 1, "gpus_per_worker": 0},
        "capacity": {"cpus": 1.0, "gpus": 0.0},
        "free": {"cpus": 0.0, "gpus": 0.0},
        "held": [
            {
                "job": _OTHER,
                "cpus": 1.0,
                "gpus": 0.0,
                "since": _AT,
                "is_ending": False,
                "remaining_s": 41.0,
            }
        ],
        "others": None,
    },
    "queue": {"ahead": 0, "not_before": None, "starts_at": _AT, "basis": _BASIS},
    "speed": None,
    "limits": {"max_wall_s": None, "max_attempts": 3},
    "attempts": [
        {
            "attempt": 1,
            "reason": "worker_lost",
            "message": "The attempt was lost: its process was killed, ran out of memory or "
            "crashed; the kernel says that SIGKILL ended it.",
            "counts": True,
            "host": "worker-1",
            "pid": 4711,
            "created_at": _AT,
            "ended_at": _AT,
            "heard_at": _AT,
            "resumed_from_step": None,
            "last_step": 340,
            "exit": {"signal": "SIGKILL", "code": None, "detail": None},
            "memory": {
                "peak_rss_bytes": 412_000_000,
                "oom_kills": 0,
                "by_memory_monitor": False,
            },
            "followed_by": "It was the last one; the job is queued.",
        }
    ],
    "last_lines": [],
    "links": {"self": f"{_JOB}/explain", "job": _JOB, "logs": f"{_JOB}/logs"},
}
_GRID = {
    "name": "grids/00000540.png",
    "attempt": 1,
    "media_type": "image/png",
    "digest": _DIGEST,
    "size_bytes": 21_504,
    "step": 540,
    "epoch": 6.0,
    "created_at": _AT,
    "links": {"content": f"{_JOB}/artifacts/grids/00000540.png"},
}
_CHECKPOINT = {
    "id": "00000540",
    "attempt": 1,
    "step": 540,
    "epoch": 6.0,
    "digest": _DIGEST,
    "size_bytes": 4_312_496,
    "metrics": {"loss_nats": 431.7},
    "is_best": True,
    "has_train_state": True,
    "created_at": _AT,
    "links": {
        "weights": f"{_JOB}/checkpoints/00000540/weights",
        "samples": f"{_JOB}/samples?checkpoint=00000540",
    },
}
_PLAN = {
    "spec": SPEC,
    "parameters": 1_076_000,
    "memory_bytes": 420_000_000,
    "steps": 5400,
    "storage_bytes": 95_000_000,
    "duration_s": 45.0,
    "waits_for": "resources held by 1 running job(s)",
    "advice": [],
    "queue": {"ahead": 0, "not_before": None, "starts_at": _AT, "basis": _BASIS},
}
_DATASET = {
    "name": "mnist-10k",
    "title": "MNIST: 10,000 handwritten digits, 28×28 grey",
    "shape": [28, 28],
    "count": 10_000,
    "is_image": True,
    "digest": _DIGEST,
    "available": True,
    "detail": "The first 10,000 training digits of MNIST.",
    "size_bytes": 7_840_000,
    "uploaded": False,
    "created_at": None,
    "version": None,
    "owner": None,
}
_UPLOAD = {
    "name": "our-faces",
    "title": "5,000 pictures, 64×64 colour, uploaded",
    "shape": [64, 64, 3],
    "count": 5_000,
    "is_image": True,
    "digest": _DIGEST,
    "available": True,
    "detail": "Uploaded as zip.",
    "size_bytes": 61_440_000,
    "uploaded": True,
    "created_at": _AT,
    "version": 1,
    "owner": "ana",
}
_EVENT = {
    "seq": 7,
    "at": _AT,
    "attempt": 1,
    "kind": "metrics",
    "data": {"step": 90, "epoch": 1.0, "values": {"loss_nats": 571.2}},
}
_POINT = {"step": 90, "epoch": 1.0, "value": 571.2, "at": _AT}

_SWEEP = {
    "number": 1,
    "state": "done",
    "dry_run": True,
    "started_at": _AT,
    "ended_at": _AT,
    "error": None,
    "count": 3,
    "size_bytes": 8_624_992,
    "totals": [{"kind": "attempt", "count": 3, "size_bytes": 8_624_992}],
    "findings": [
        {
            "kind": "attempt",
            "name": "jobs/job-5f0c2b9e6f5a4d7c/attempts/1/checkpoints/00000540/manifest.json",
            "why": "no row knows the checkpoint",
            "count": 1,
            "size_bytes": 2_412,
        }
    ],
}

# By the name of the answer's schema.
EXAMPLES: dict[str, dict[str, Any]] = {
    "JobBody": _BODY,
    "JobPage": {"jobs": [_SUMMARY], "next_cursor": None},
    "JobRequest": REQUEST,
    "IntentBody": {"intent": "paused", "job": {**_BODY, "pause_requested": True}},
    "PlanBody": _PLAN,
    "ExplanationBody": _EXPLANATION,
    "EventPage": {"events": [_EVENT], "next_after": 7},
    "LogPageBody": {
        "lines": [
            {
                "at": _AT,
                "level": "info",
                "text": "training begins: 5400 steps, 90 an epoch",
                "lines": None,
                "size_bytes": None,
                "attempt": 1,
                "rank": 0,
            },
        ],
        "next_after": "4-0",
        "has_more": False,
        "is_ended": False,
    },
    "MetricsBody": {"metrics": {"loss_nats": [_POINT]}},
    "CheckpointList": {"checkpoints": [_CHECKPOINT]},
    "GridList": {"grids": [_GRID]},
    "ArtifactList": {"artifacts": [_GRID]},
    "SamplesBody": {
        "checkpoint": "00000540",
        "step": 540,
        "seed": 0,
        "n": 2,
        "spread": False,
        "shape": [2, 2],
        "samples": [[0.98, 0.17], [-0.34, 0.94]],
    },
    "ReconstructionsBody": {
        "checkpoint": "00000540",
        "step": 540,
        "seed": 0,
        "n": 1,
        "noise_scale": 0.1,
        "shape": [1, 2],
        "x": [[0.98, 0.17]],
        "y": [[1.06, 0.21]],
        "z": [[-0.61]],
        "g": [[0.97, 0.19]],
        "rmse": 0.0158,
    },
    "InterpolationsBody": {
        "checkpoint": "00000540",
        "step": 540,
        "seed": 0,
        "n": 1,
        "steps": 2,
        "between": "prior",
        "path": "spherical",
        "shape": [1, 2, 2],
        "z": [[[0.4], [-1.3]]],
        "g": [[[0.98, 0.17], [-0.34, 0.94]]],
        "x": None,
    },
    **ICA_EXAMPLES,
    **STUDY_EXAMPLES,
    "SweepBody": _SWEEP,
    "DatasetList": {"datasets": [_DATASET, _UPLOAD]},
    "AuditPageBody": {
        "entries": [
            {
                "seq": 7,
                "at": "2026-01-01T12:00:00Z",
                "owner": "ana",
                "key": "9f86d081884c7d65",
                "action": "POST",
                "target": "/v1/jobs",
                "made": "/v1/jobs/job-5f0c2b9e6f5a4d7c",
                "status": 201,
                "request_id": "4f0c2b9e6f5a4d7c",
                "client": "10.0.0.7",
            }
        ],
        "next_before": None,
    },
    "DatasetBody": _UPLOAD,
    "TrainerList": {
        "trainers": [
            {
                "name": "delta_vae",
                "title": "δ-VAE, trained by spread divergence",
                "description": "The implicit model x = g(z) trained through a spread KL.",
                "links": {"schema": "/v1/trainers/delta_vae/schema"},
            }
        ]
    },
    "LiveBody": {"alive": True},
    "ReadyBody": {
        "ready": True,
        "parts": [{"name": "database", "ready": True, "detail": "ok"}],
    },
}


def add_examples(document: dict[str, Any]) -> None:
    """Put the example of each JSON answer into an OpenAPI document."""
    for operations in document["paths"].values():
        for operation in operations.values():
            for answer in operation["responses"].values():
                content = answer.get("content", {}).get("application/json", {})
                name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
                if name in EXAMPLES:
                    content["example"] = EXAMPLES[name]
