"""The content that each study pins; indexes for what is asked every few seconds."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add the column and the indexes."""
    _pin_contents()
    _keep_times()
    _wishes()


def _keep_times() -> None:
    """Find jobs whose time is over without a look at those whose is not."""
    keep = [f"keep_{state}_s" for state in ("succeeded", "failed", "cancelled")]
    op.drop_index("jobs_by_end", "jobs")
    op.create_index("jobs_by_end", "jobs", ["deleted_us", "state", "study_id", "ended_us", *keep])
    has_own = sa.or_(*(sa.column(name).is_not(None) for name in keep))
    op.create_index(
        "jobs_by_own_end",
        "jobs",
        ["deleted_us", "state", "study_id", "ended_us", *keep, "id"],
        sqlite_where=has_own,
        postgresql_where=has_own,
    )


def _wishes() -> None:
    """Find jobs that are to be cancelled or paused."""
    has_wish = sa.or_(*(sa.column(f"{wish}_requested", sa.Boolean) for wish in ("cancel", "pause")))
    op.create_index(
        "jobs_by_wish", "jobs", ["state"], sqlite_where=has_wish, postgresql_where=has_wish
    )


def _pin_contents() -> None:
    """Add to each study the digest in its request."""
    op.add_column("studies", sa.Column("dataset_digest", sa.Text))
    op.create_index("studies_by_dataset_digest", "studies", ["dataset_digest"])
    studies = sa.table(
        "studies", sa.column("id"), sa.column("request"), sa.column("dataset_digest")
    )
    connection = op.get_bind()
    for study_id, request in connection.execute(sa.select(studies.c.id, studies.c.request)).all():
        # A figure of the paper has no data set.
        digest = (json.loads(request)["spec"].get("dataset") or {}).get("digest")
        if digest is not None:
            of_study = sa.update(studies).where(studies.c.id == study_id)
            connection.execute(of_study.values(dataset_digest=digest))
