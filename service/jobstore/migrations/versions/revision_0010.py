"""API keys, whose jobs, studies and data sets are, and the record of who did what."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Make the tables; what was made before is nobody's, and counts against nobody's limits."""
    for name in ("jobs", "studies"):
        op.add_column(name, sa.Column("owner", sa.Text))
        op.add_column(name, sa.Column("reserved_bytes", sa.BigInteger))
    op.add_column("datasets", sa.Column("owner", sa.Text))
    op.create_index(
        "jobs_by_owner", "jobs", ["owner", "deleted_us", "state", "study_id", "reserved_bytes"]
    )
    op.create_index("studies_by_owner", "studies", ["owner", "state"])
    op.create_index("datasets_by_owner", "datasets", ["owner"])
    _keys()
    _audit()


def _keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("max_running", sa.Integer),
        sa.Column("max_storage_bytes", sa.BigInteger),
        sa.Column("requests_per_s", sa.Float),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("revoked_us", sa.BigInteger),
    )
    op.create_index("api_keys_by_owner", "api_keys", ["owner"])


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("key_id", sa.Text),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("client", sa.Text, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("made", sa.Text),
    )
    op.create_index("audit_by_time", "audit", ["at_us"])
    op.create_index("audit_by_owner", "audit", ["owner", "seq"])
