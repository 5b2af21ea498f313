import socket
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from weakref import ref

import pytest
from torch import Tensor

from tests.factories import long_spec, tiny_spec
from workers import beginning, checkpoint
from workers.artifacts import LocalStore, chunk_key, outcome_key
from workers.checkpoint import Versions, decode_tensors
from workers.data import idx_files, named
from workers.data.idx_files import MNIST
from workers.errors import CheckpointError, StoreError, StoreNotShared
from workers.events import (
    RECORD,
    CheckpointRecord,
    FirstStepRecord,
    MetricsRecord,
    NoticeRecord,
    Outcome,
    OutcomeReason,
    Record,
    StartedRecord,
)
from workers.publish import KeptCheckpoint
from workers.run import Run, StopFlag, execute
from workers.spec import NamedDataset, TrainSpec


def run_of(
    store: LocalStore, tmp_path: Path, spec: TrainSpec, attempt: int = 1, **fields: object
) -> Run:
    return Run.model_validate(
        {
            "job_id": "job-1",
            "attempt": attempt,
            "spec": spec,
            "artifacts_uri": store.uri,
            "cache_dir": tmp_path,
            **fields,
        }
    )


def records_of(store: LocalStore, run: Run, outcome: Outcome) -> list[Record]:
    assert outcome.chunks is not None
    return [
        RECORD.validate_json(line)
        for chunk in range(outcome.chunks)
        for line in store.get(chunk_key(run.prefix, chunk)).splitlines()
    ]


def weights_of(store: LocalStore, run: Run, step: int) -> dict[str, bytes]:
    with store.open_file(f"{run.prefix}/checkpoints/{step:08d}/weights.safetensors") as path:
        return {name: tensor.numpy().tobytes() for name, tensor in decode_tensors(path).items()}


def test_a_run_publishes_its_events_and_last_of_all_its_outcome(
    artifacts: LocalStore, tmp_path: Path
) -> None:
    run = run_of(artifacts, tmp_path, tiny_spec())
    outcome = execute(run, StopFlag())
    assert outcome.reason == "completed"
    assert outcome.step == 12
    stored = Outcome.model_validate_json(artifacts.get(outcome_key(run.prefix)))
    assert stored == outcome
    records = records_of(artifacts, run, outcome)
    assert isinstance(records[0], StartedRecord)
    assert records[0].total_steps == 12
    assert [r.step for r in records if isinstance(r, FirstStepRecord)] == [1]
    assert [r.step for r in records if isinstance(r, CheckpointRecord)] == [4, 12]
    assert {r.step for r in records if isinstance(r, MetricsRecord)} >= {4, 8, 12}


def test_every_published_file_is_recorded_with_its_digest(
    artifacts: LocalStore, tmp_path: Path
) -> None:
    import hashlib

    run = run_of(artifacts, tmp_path, tiny_spec())
    records = records_of(artifacts, run, execute(run, StopFlag()))
    checkpoints = [r for r in records if isinstance(r, CheckpointRecord)]
    for record in checkpoints:
        content = artifacts.get(f"{record.prefix}/weights.safetensors")
        assert record.digest == "sha256:" + hashlib.sha256(content).hexdigest()
        assert record.size_bytes == len(content)


def test_a_stopped_run_goes_on_to_the_same_weights(artifacts: LocalStore, tmp_path: Path) -> None:
    spec = tiny_spec(epochs=40)
    whole = run_of(artifacts, tmp_path, spec)
    end = execute(whole, StopFlag()).step
    stop = StopFlag()
    stop.request("interrupted")
    first = run_of(artifacts, tmp_path, spec, attempt=2)
    outcome = execute(first, stop)
    assert outcome.reason == "interrupted"
    assert outcome.step < end
    second = run_of(
        artifacts,
        tmp_path,
        spec,
        attempt=3,
        resume_from=f"{first.prefix}/checkpoints/{outcome.step:08d}",
    )
    assert execute(second, StopFlag()).reason == "completed"
    assert weights_of(artifacts, second, end) == weights_of(artifacts, whole, end)


def test_a_train_state_may_be_larger_than_any_file_of_strangers(
    artifacts: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt's own state has three or four times the bytes of the weights."""
    stop = StopFlag()
    stop.request("paused")
    first = run_of(artifacts, tmp_path, tiny_spec(epochs=1))
    prefix = f"{first.prefix}/checkpoints/{execute(first, stop).step:08d}"
    monkeypatch.setattr(checkpoint, "MAX_FILE_BYTES", 16)
    with pytest.raises(CheckpointError, match="too large"):
        decode_tensors(artifacts.root / prefix / "weights.safetensors")
    second = run_of(artifacts, tmp_path, tiny_spec(epochs=1), attempt=2, resume_from=prefix)
    assert execute(second, StopFlag()).reason == "completed"


def test_what_a_run_was_resumed_from_is_let_go_of_before_its_first_step(
    artifacts: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has no name any more, and takes up room for as long as it is mapped."""
    stop = StopFlag()
    stop.request("paused")
    first = run_of(artifacts, tmp_path, tiny_spec(epochs=1))
    prefix = f"{first.prefix}/checkpoints/{execute(first, stop).step:08d}"
    read: list[ref[Tensor]] = []
    held: list[int] = []

    def decode(path: Path, *, is_verified: bool) -> dict[str, Tensor]:
        tensors = decode_tensors(path, is_verified=is_verified)
        read.extend(map(ref, tensors.values()))
        return tensors

    class Asked(StopFlag):
        @property
        def reason(self) -> OutcomeReason | None:
            held.append(sum(tensor() is not None for tensor in read))
            return super().reason

    monkeypatch.setattr(beginning, "decode_tensors", decode)
    second = run_of(artifacts, tmp_path, tiny_spec(epochs=1), attempt=2, resume_from=prefix)
    assert execute(second, Asked()).reason == "completed"
    assert read
    assert set(held) == {0}


def test_a_run_pauses_at_the_end_of_the_epoch_that_its_study_names(
    artifacts: LocalStore, tmp_path: Path
) -> None:
    run = run_of(artifacts, tmp_path, tiny_spec()).model_copy(update={"until_epoch": 2})
    outcome = execute(run, StopFlag())
    assert (outcome.reason, outcome.step) == ("at_rung", 8)
    records = records_of(artifacts, run, outcome)
    last = [record for record in records if isinstance(record, CheckpointRecord)][-1]
    assert (last.epoch, last.step) == (2, 8)


def test_a_damaged_train_state_is_passed_over_for_the_one_before(
    artifacts: LocalStore, tmp_path: Path
) -> None:
    spec = tiny_spec(epochs=6).model_copy(update={"checkpoint_every_epochs": 2})
    first = run_of(artifacts, tmp_path, spec)
    end = execute(first, StopFlag()).step
    before, last = (f"{first.prefix}/checkpoints/{step:08d}" for step in (16, end))
    damaged = artifacts.root / last / "train_state.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    kept = KeptCheckpoint(
        id=f"{end:08d}",
        prefix=last,
        step=end,
        is_best=False,
        is_named=False,
        has_train_state=True,
    )
    second = run_of(
        artifacts,
        tmp_path,
        spec,
        attempt=2,
        resume_from=last,
        resume_else=before,
        earlier=(kept,),
    )
    outcome = execute(second, StopFlag())
    assert outcome.reason == "completed"
    assert weights_of(artifacts, second, end) == weights_of(artifacts, first, end)
    records = records_of(artifacts, second, outcome)
    started = next(record for record in records if isinstance(record, StartedRecord))
    assert started.resumed_from_step == 16
    notices = {r.code: r.message for r in records if isinstance(r, NoticeRecord)}
    assert "00000024 of attempt 1" in notices["checkpoint_damaged"]
    assert "resumed from checkpoint 00000016 of attempt 1 at step 16" in notices["resumed"]
    assert "bit for bit" in notices["resumed"]
    hopeless = run_of(artifacts, tmp_path, spec, attempt=3, resume_from=last)
    assert execute(hopeless, StopFlag()).reason == "internal_error"


def test_the_keep_policy_bounds_what_a_run_leaves(artifacts: LocalStore, tmp_path: Path) -> None:
    spec = tiny_spec(epochs=12).model_copy(
        update={"checkpoint_every_epochs": 1, "checkpoint_at_epochs": (), "keep_checkpoints": 4}
    )
    run = run_of(artifacts, tmp_path, spec)
    execute(run, StopFlag())
    keys = [stored.key for stored in artifacts.list(f"{run.prefix}/checkpoints")]
    weights = [key for key in keys if key.endswith("weights.safetensors")]
    states = [key for key in keys if key.endswith("train_state.safetensors")]
    assert len(weights) <= 5  # four, and the best one
    assert weights[0].endswith("00000004/weights.safetensors")
    assert weights[-1].endswith("00000048/weights.safetensors")
    assert [key.split("/")[-2] for key in states] == ["00000044", "00000048"]


def test_a_time_limit_ends_a_run_with_a_checkpoint(artifacts: LocalStore, tmp_path: Path) -> None:
    run = run_of(artifacts, tmp_path, long_spec(), wall_s=0.3)
    outcome = execute(run, StopFlag())
    assert outcome.reason == "time_limit"
    assert weights_of(artifacts, run, outcome.step)


def test_other_versions_are_refused_by_name(artifacts: LocalStore, tmp_path: Path) -> None:
    run = run_of(artifacts, tmp_path, tiny_spec(), versions=Versions(spreadtrain="0.0.1"))
    outcome = execute(run, StopFlag())
    assert outcome.reason == "version_mismatch"
    assert "0.0.1" in outcome.message


@pytest.mark.parametrize("build", ["", "+cpu", "+cu130"])
def test_another_build_of_torch_is_no_other_version(
    artifacts: LocalStore, tmp_path: Path, build: str
) -> None:
    public = Versions().torch.partition("+")[0]
    versions = Versions(torch=f"{public}{build}")
    run = run_of(artifacts, tmp_path, tiny_spec(epochs=1), versions=versions)
    assert execute(run, StopFlag()).reason == "completed"
    assert not Versions().agree(Versions(torch=f"{public}9{build}"))


def test_data_that_is_not_there_is_a_reason_and_not_a_traceback(
    artifacts: LocalStore, tmp_path: Path
) -> None:
    spec = tiny_spec().model_copy(
        update={
            "dataset": TrainSpec.model_validate(
                {"dataset": {"name": "no-such-data"}, "trainer": {"kind": "vae"}}
            ).dataset
        }
    )
    outcome = execute(run_of(artifacts, tmp_path, spec), StopFlag())
    assert outcome.reason == "data_unavailable"
    assert outcome.detail is None


def test_data_that_cannot_be_downloaded_are_a_reason_that_says_where_to_put_them(
    artifacts: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idx_files, "DEBIAN_FOLDER", tmp_path / "not-there")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    away = replace(MNIST, file=replace(MNIST.file, base_url=nobody))
    monkeypatch.setattr(named, "PUBLIC", {"mnist": away})
    spec = tiny_spec().model_copy(update={"dataset": NamedDataset(name="mnist")})
    outcome = execute(run_of(artifacts, tmp_path, spec), StopFlag())
    assert outcome.reason == "data_unavailable"
    assert f"mnist is not on this machine, and {away.file.url} cannot be reached" in outcome.message
    assert f"Put {MNIST.file.name} into the folder of that name" in outcome.message
    assert outcome.detail is None


def test_divergence_is_a_reason_that_says_what_to_try(
    artifacts: LocalStore, tmp_path: Path
) -> None:
    spec = tiny_spec(
        epochs=400,
        network={"kind": "mlp", "hidden": [64, 64, 64], "latent_dim": 2},
        optimizer={"learning_rate": 10.0, "clip_norm": None},
        spread={"kind": "gaussian", "scale": 1e-4},
    )
    outcome = execute(run_of(artifacts, tmp_path, spec), StopFlag())
    assert outcome.reason == "diverged"
    assert outcome.step > 0
    assert "learning" in outcome.message


def test_a_biased_estimator_leaves_its_warning(artifacts: LocalStore, tmp_path: Path) -> None:
    run = run_of(artifacts, tmp_path, tiny_spec(estimator="clean_target"))
    records = records_of(artifacts, run, execute(run, StopFlag()))
    assert [r.code for r in records if isinstance(r, NoticeRecord)] == ["clean_target_is_biased"]


def test_an_attempt_that_was_given_up_believes_the_service(
    artifacts: LocalStore, tmp_path: Path
) -> None:
    run = run_of(artifacts, tmp_path, tiny_spec())
    given_up = Outcome(
        reason="worker_lost", message="given up", at=datetime(2026, 1, 1, tzinfo=UTC)
    )
    artifacts.put(outcome_key(run.prefix), given_up.model_dump_json().encode())
    assert execute(run, StopFlag()) == given_up
    assert [stored.key for stored in artifacts.list("jobs")] == [outcome_key(run.prefix)]


def test_a_store_that_is_not_there_is_an_error(tmp_path: Path, artifacts: LocalStore) -> None:
    run = run_of(artifacts, tmp_path, tiny_spec()).model_copy(
        update={"artifacts_uri": "gopher://nowhere"}
    )
    with pytest.raises(StoreError):
        execute(run, StopFlag())


def test_a_node_without_the_artifact_folder_refuses_and_makes_none(
    tmp_path: Path, artifacts: LocalStore
) -> None:
    run = run_of(artifacts, tmp_path, tiny_spec())
    artifacts.root.rename(tmp_path / "on another node")
    with pytest.raises(StoreNotShared, match=r"has none at its path.*use s3://.*or mount"):
        execute(run, StopFlag())
    assert not artifacts.root.exists()
    other = LocalStore(artifacts.root)  # of another installation, under the same path
    with pytest.raises(StoreNotShared, match="has another one at its path"):
        execute(run, StopFlag())
    assert list(other.list("jobs")) == []


def test_a_folder_that_was_unmounted_is_not_filled_below_its_mount(artifacts: LocalStore) -> None:
    artifacts.put("jobs/before", b"x")
    away = artifacts.root.rename(artifacts.root.with_name("away"))
    artifacts.root.mkdir()
    with pytest.raises(StoreError, match="not there any more"):
        artifacts.put("jobs/after", b"x")
    assert not list(artifacts.root.iterdir())
    artifacts.root.rmdir()
    away.rename(artifacts.root)
    artifacts.put("jobs/after", b"x")
    assert LocalStore(artifacts.root).uri == artifacts.uri


OUT_OF_MEMORY = """
import resource, sys, psutil
from workers.publish import KeptCheckpoint
from workers.run import Run, StopFlag, execute
from workers.warm_up import warm_up

warm_up()
run = Run.model_validate_json(sys.stdin.read())
limit = psutil.Process().memory_info().vms + (96 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
execute(run, StopFlag())
"""


def test_a_process_without_enough_memory_says_so_and_not_that_there_is_a_defect(
    artifacts: LocalStore, tmp_path: Path
) -> None:
    network = {"kind": "mlp", "hidden": [4096, 4096], "latent_dim": 2}  # 128 MB of weights alone
    run = run_of(artifacts, tmp_path, tiny_spec(network=network))
    subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY],
        input=run.model_dump_json(),
        text=True,
        cwd=Path(__file__).parents[3],
        check=True,
    )
    outcome = Outcome.model_validate_json(artifacts.get(outcome_key(run.prefix)))
    assert outcome.reason == "out_of_memory"
    assert outcome.detail is None
