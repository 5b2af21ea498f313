"""Studies, their trials, and what these have reported."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the tables; jobs of before belong to no study."""
    op.add_column("jobs", sa.Column("study_id", sa.Text))
    op.create_index("jobs_by_study", "jobs", ["study_id", "created_us", "id"])
    _studies()
    _trials()
    _results()


def _studies() -> None:
    op.create_table(
        "studies",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("is_overridden", sa.Boolean, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("pause_requested", sa.Boolean, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("updated_us", sa.BigInteger, nullable=False),
        sa.Column("ended_us", sa.BigInteger),
        sa.Column("last_trial", sa.Integer, nullable=False),
        sa.Column("last_result", sa.BigInteger, nullable=False),
    )
    op.create_index("studies_by_time", "studies", ["created_us", "id"])
    op.create_index("studies_by_state", "studies", ["state", "created_us", "id"])


def _trials() -> None:
    op.create_table(
        "trials",
        sa.Column(
            "study_id", sa.Text, sa.ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("configuration", sa.Integer, nullable=False),
        sa.Column("values", sa.Text, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id"), nullable=False),
        sa.UniqueConstraint("study_id", "configuration", "seed", name="trials_by_configuration"),
        sa.UniqueConstraint("job_id", name="trials_by_job"),
    )


def _results() -> None:
    op.create_table(
        "trial_results",
        sa.Column("study_id", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("trial", sa.Integer, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("metrics", sa.Text, nullable=False),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id", "trial"], ["trials.study_id", "trials.number"], ondelete="CASCADE"
        ),
        sa.UniqueConstraint("study_id", "trial", "epoch", name="trial_results_by_epoch"),
    )
