"""The lease of the one service that leads, where several share a database."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add the table with its one row: nobody leads."""
    table = op.create_table(
        "leadership",
        sa.Column("only", sa.Integer, sa.CheckConstraint('"only" = 1'), primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("service", sa.Text, nullable=False),
        sa.Column("expires_us", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(table, [{"only": 1, "number": 0, "service": "", "expires_us": 0}])
