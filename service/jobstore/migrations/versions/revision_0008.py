"""Idempotency keys of studies, and deleting them."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Make the table; studies of before were submitted without keys, and are not deleted."""
    op.add_column("studies", sa.Column("deleted_us", sa.BigInteger))
    op.create_table(
        "study_keys",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("body_digest", sa.Text, nullable=False),
        sa.Column(
            "study_id",
            sa.Text,
            sa.ForeignKey("studies.id", ondelete="CASCADE", deferrable=True, initially="DEFERRED"),
            nullable=False,
        ),
        sa.Column("created_us", sa.BigInteger, nullable=False),
    )
    op.create_index("study_keys_by_study", "study_keys", ["study_id"])
