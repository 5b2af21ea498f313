"""A job's life: its parent, the wish to pause, back-off, and the attempts that count."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns; no job of before has a parent, a wish, or was retried."""
    for name in ("job_id", "checkpoint_id", "prefix", "digest", "start"):
        op.add_column("jobs", sa.Column(f"parent_{name}", sa.Text))
    op.add_column(
        "jobs",
        sa.Column("pause_requested", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    op.add_column("jobs", sa.Column("not_before_us", sa.BigInteger))
    op.add_column(
        "jobs", sa.Column("counts_from", sa.Integer, nullable=False, server_default=sa.text("0"))
    )
    op.create_index("jobs_by_parent", "jobs", ["parent_job_id", "created_us", "id"])
