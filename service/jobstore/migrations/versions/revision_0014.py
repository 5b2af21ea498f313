"""The content that each study pins."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
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
