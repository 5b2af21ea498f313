"""Filters of the list that are combined, are answered from one index: it holds all of them."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Make two indexes anew, with the other filters behind the list's order."""
    for first, others in (("state", ["trainer", "dataset"]), ("trainer", ["dataset"])):
        name = f"jobs_by_{first}"
        op.drop_index(name, "jobs")
        op.create_index(name, "jobs", [first, "created_us", "id", *others, "deleted_us"])
