"""The installation's own id, by which it knows its artifact store again."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the table with its one row."""
    table = op.create_table(
        "installation",
        sa.Column("only", sa.Integer, sa.CheckConstraint('"only" = 1'), primary_key=True),
        sa.Column("id", sa.Text, nullable=False),
    )
    op.bulk_insert(table, [{"only": 1, "id": secrets.token_hex(16)}])
