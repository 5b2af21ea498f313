"""Names of uploaded data sets, and the content that each job pins."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the table of names, and to each job the digest in its spec."""
    op.create_table(
        "datasets",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("shape", sa.Text, nullable=False),
        sa.Column("dtype", sa.Text, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("is_image", sa.Boolean, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("source_format", sa.Text, nullable=False),
        sa.Column("source_digest", sa.Text, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
    )
    op.create_index("datasets_by_digest", "datasets", ["digest"])
    op.add_column("jobs", sa.Column("dataset_digest", sa.Text))
    op.create_index("jobs_by_dataset_digest", "jobs", ["dataset_digest"])
    jobs = sa.table("jobs", sa.column("id"), sa.column("spec"), sa.column("dataset_digest"))
    connection = op.get_bind()
    for job_id, spec in connection.execute(sa.select(jobs.c.id, jobs.c.spec)).all():
        digest = json.loads(spec)["dataset"].get("digest")
        connection.execute(sa.update(jobs).where(jobs.c.id == job_id).values(dataset_digest=digest))
