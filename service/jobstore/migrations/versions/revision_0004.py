"""How long jobs are kept, and the mark of those that are deleted."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the columns; jobs of before are kept as the installation says."""
    for state in ("succeeded", "failed", "cancelled"):
        op.add_column("jobs", sa.Column(f"keep_{state}_s", sa.Float))
    op.add_column("jobs", sa.Column("deleted_us", sa.BigInteger))
    op.create_index(
        "jobs_by_end",
        "jobs",
        [
            *("deleted_us", "state", "ended_us"),
            *("keep_succeeded_s", "keep_failed_s", "keep_cancelled_s"),
        ],
    )
