from pathlib import Path
from typing import Any

import pytest

from service.cluster.inline import InlineCluster
from service.errors import InvalidSpec
from service.explaining.ended import explain_ended
from service.jobs import JobState, Reason
from service.jobstore import JobStore
from tests.factories import request
from tests.harness import Service, make_service
from workers.artifacts import LocalStore
from workers.spec import TrainSpec


def spec_of(*features: str, **dataset: Any) -> TrainSpec:
    return TrainSpec.model_validate(
        {
            "dataset": {"name": "digits", **dataset},
            "trainer": {
                "kind": "vae",
                "network": {"kind": "mlp", "hidden": [8], "latent_dim": 2},
                "epochs": 1,
                "batch_size": 500,
                "quality": {"samples": 100, "components": 2, "features": features},
            },
        }
    )


def test_a_network_without_weights_is_refused_with_what_to_do(service: Service) -> None:
    with pytest.raises(InvalidSpec) as refused:
        service.submit(request(spec_of("efficientnet_lite0_40", "inception_v3_fid")))
    [error] = refused.value.errors
    assert error.pointer == "/spec/trainer/quality/features/1"
    assert "set SPREADTRAIN_FID_WEIGHTS to the path or URL" in error.message


def test_a_node_without_the_weights_fails_a_job_by_name_before_it_trains(
    jobs: JobStore, artifacts: LocalStore, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"something else")
    service = make_service(jobs, artifacts, tmp_path, InlineCluster(), fid_weights=str(weights))
    job = service.run_to_end(service.submit(request(spec_of("inception_v3_fid"))))
    assert (job.state, job.reason) == (JobState.FAILED, Reason.EXTRACTOR_UNAVAILABLE)
    assert "is not used: replace it" in job.message
    assert str(tmp_path) not in job.message
    assert job.progress is None or job.progress.step == 0
    assert [attempt.reason for attempt in jobs.attempts(job.id)] == [job.reason]
    said = explain_ended(job, jobs.attempts(job.id), has_checkpoint=False)
    assert said.rule.name == "not_repeated"
    assert "on every node" in said.changes[0].sentence
    service.cluster.close()
