"""The trace that a job's submission belongs to."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the column; jobs that are there belong to none."""
    op.add_column("jobs", sa.Column("traceparent", sa.Text))
