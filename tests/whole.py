"""What a store lists of a job is whole, whatever went wrong while it was written."""

import contextlib

from service.jobs import Job
from service.jobstore import JobStore
from workers.artifacts import ArtifactStore, job_prefix
from workers.checkpoint import FileFacts, parse_manifest
from workers.errors import ArtifactNotFound


def assert_all_whole(store: ArtifactStore, jobs: JobStore, job: Job) -> None:
    """Every checkpoint that has a row or a manifest has both files as the manifest says."""
    keys = {stored.key for stored in store.list(job_prefix(job.id))}
    rows = {checkpoint.prefix: checkpoint for checkpoint in jobs.checkpoints(job.id)}
    named = {key.removesuffix("/manifest.json") for key in keys if key.endswith("/manifest.json")}
    assert rows.keys() <= named
    for prefix in named:
        manifest = parse_manifest(store.get(f"{prefix}/manifest.json"))
        with store.open_file(f"{prefix}/weights.safetensors") as path:
            assert FileFacts.of(path) == manifest.weights
        with (
            contextlib.suppress(ArtifactNotFound),  # only the last two keep theirs
            store.open_file(f"{prefix}/train_state.safetensors") as path,
        ):
            assert FileFacts.of(path) == manifest.train_state
        if prefix in rows:
            assert rows[prefix].digest == manifest.weights.digest
