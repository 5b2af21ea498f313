"""The list knows from its indexes which jobs are deleted, with no filter and with one of data."""

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Make the two indexes anew that did not hold the time of deletion."""
    for name, columns in (
        ("jobs_by_time", ["deleted_us", "created_us", "id"]),
        ("jobs_by_dataset", ["dataset", "created_us", "id", "deleted_us"]),
    ):
        op.drop_index(name, "jobs")
        op.create_index(name, "jobs", columns)
