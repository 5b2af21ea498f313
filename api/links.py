"""Links of the OpenAPI document: which answer holds what another operation asks for."""

from typing import Any

_THIS_JOB = {"job_id": "$request.path.job_id"}
_NEW_JOB = {"job_id": "$response.body#/id"}
_JOB_OPERATIONS = (
    *("get_job", "get_job_spec", "get_job_events", "get_logs", "get_metrics"),
    *("list_checkpoints", "list_grids", "list_artifacts", "get_samples", "get_filmstrip"),
    *("get_reconstructions", "get_interpolations", "get_mixing", "get_unmixing"),
    *("cancel_job", "pause_job", "resume_job", "retry_job", "fork_job", "delete_job"),
)
_THIS_STUDY = {"study_id": "$request.path.study_id"}
_NEW_STUDY = {"study_id": "$response.body#/id"}
_STUDY_OPERATIONS = (
    *("get_study", "list_trials", "get_best", "get_curve", "get_pareto", "get_importance"),
    *("get_parallel", "get_study_samples", "extend_study", "promote_trial"),
    *("cancel_study", "pause_study", "resume_study", "retry_study", "delete_study"),
)
_FORKED = {"job_id": "$response.body#/job/id"}
_THIS_DATASET = {"name": "$request.path.name"}


def _link(operation: str, parameters: dict[str, str], description: str) -> dict[str, Any]:
    return {"operationId": operation, "parameters": parameters, "description": description}


# By operation and status: the links by name.
LINKS: dict[tuple[str, str], dict[str, dict[str, Any]]] = {
    ("submit_job", "201"): {
        name: _link(name, _NEW_JOB, "The job is at the answer's Location.")
        for name in _JOB_OPERATIONS
    },
    ("list_jobs", "200"): {
        "get_job": _link(
            "get_job", {"job_id": "$response.body#/jobs/0/id"}, "The newest job of the page, whole."
        )
    },
    ("get_job", "200"): {
        name: _link(name, _THIS_JOB, "What belongs to the job.") for name in _JOB_OPERATIONS[1:]
    },
    ("get_job_spec", "200"): {
        "submit_job": {
            "operationId": "submit_job",
            "requestBody": "$response.body",
            "description": "The answer can be submitted again as it is.",
        }
    },
    **{
        (verb, "202"): {
            "get_job": _link("get_job", _THIS_JOB, "The job says when it is as intended.")
        }
        for verb in ("cancel_job", "pause_job", "resume_job", "retry_job")
    },
    ("fork_job", "202"): {"get_job": _link("get_job", _FORKED, "The new job.")},
    ("submit_study", "201"): {
        name: _link(name, _NEW_STUDY, "The study is at the answer's Location.")
        for name in _STUDY_OPERATIONS
    },
    ("list_studies", "200"): {
        "get_study": _link(
            "get_study", {"study_id": "$response.body#/studies/0/id"}, "The newest of the page."
        )
    },
    ("get_study", "200"): {
        name: _link(name, _THIS_STUDY, "What belongs to the study.")
        for name in _STUDY_OPERATIONS[1:]
    },
    **{
        (verb, "202"): {
            "get_study": _link("get_study", _THIS_STUDY, "The study says when it is as intended.")
        }
        for verb in ("cancel_study", "pause_study", "resume_study", "retry_study")
    },
    ("list_trials", "200"): {
        "get_job": _link("get_job", {"job_id": "$response.body#/trials/0/job"}, "The first trial.")
    },
    ("promote_trial", "202"): {"get_job": _link("get_job", _FORKED, "The new job.")},
    ("delete_study", "204"): {"get_study": _link("get_study", _THIS_STUDY, "404 from now on.")},
    **{
        (name, "200"): {
            "submit_study": {
                "operationId": "submit_study",
                "requestBody": "$response.body#/request",
                "description": "The request can be submitted as it is.",
            }
        }
        for name in ("get_spread_scale_preset", "get_ica_sigma_preset")
    },
    ("delete_job", "204"): {"get_job": _link("get_job", _THIS_JOB, "404 from now on.")},
    ("list_checkpoints", "200"): {
        name: _link(
            name,
            {**_THIS_JOB, "checkpoint": "$response.body#/checkpoints/0/id"},
            "Of the first checkpoint.",
        )
        for name in ("get_weights", "get_samples", "get_reconstructions", "get_interpolations")
    },
    ("list_grids", "200"): {
        "get_artifact": _link(
            "get_artifact", {**_THIS_JOB, "name": "$response.body#/grids/0/name"}, "The first grid."
        )
    },
    ("list_artifacts", "200"): {
        "get_artifact": _link(
            "get_artifact",
            {**_THIS_JOB, "name": "$response.body#/artifacts/0/name"},
            "The first file.",
        )
    },
    **{
        ("put_dataset", status): {
            name: _link(name, _THIS_DATASET, "The data set has the name that was asked for.")
            for name in ("get_dataset", "delete_dataset")
        }
        for status in ("200", "201")
    },
    ("delete_dataset", "204"): {
        "get_dataset": _link("get_dataset", _THIS_DATASET, "404 from now on.")
    },
    ("list_trainers", "200"): {
        "get_trainer_schema": _link(
            "get_trainer_schema",
            {"name": "$response.body#/trainers/0/name"},
            "The schema of the first trainer's spec.",
        )
    },
}


def add_links(document: dict[str, Any]) -> None:
    """Put the links into an OpenAPI document."""
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, answer in operation["responses"].items():
                if found := LINKS.get((operation["operationId"], status)):
                    answer["links"] = found
