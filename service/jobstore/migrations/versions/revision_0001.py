"""Jobs, attempts, events and results."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first tables."""
    _jobs()
    _attempts()
    _events_and_metrics()
    _files()


def _job_id() -> sa.Column[str]:
    return sa.Column(
        "job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("labels", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("limits", sa.Text, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("spec_digest", sa.Text, nullable=False),
        sa.Column("trainer", sa.Text, nullable=False),
        sa.Column("dataset", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("updated_us", sa.BigInteger, nullable=False),
        sa.Column("ended_us", sa.BigInteger),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("step", sa.BigInteger),
        sa.Column("total_steps", sa.BigInteger),
        sa.Column("epoch", sa.Float),
        sa.Column("eta_s", sa.Float),
    )
    op.create_index("jobs_by_time", "jobs", ["created_us", "id"])
    op.create_index("jobs_by_state", "jobs", ["state", "created_us", "id"])
    op.create_index("jobs_by_trainer", "jobs", ["trainer", "created_us", "id"])
    op.create_index("jobs_by_dataset", "jobs", ["dataset", "created_us", "id"])
    op.create_index("jobs_by_turn", "jobs", ["state", sa.text("priority DESC"), "created_us", "id"])
    op.create_table(
        "job_labels",
        _job_id(),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
    )
    op.create_index("labels_by_value", "job_labels", ["key", "value", "created_us", "job_id"])
    op.create_index("labels_by_key", "job_labels", ["key", "created_us", "job_id"])
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("body_digest", sa.Text, nullable=False),
        sa.Column(
            "job_id",
            sa.Text,
            sa.ForeignKey("jobs.id", ondelete="CASCADE", deferrable=True, initially="DEFERRED"),
            nullable=False,
        ),
        sa.Column("created_us", sa.BigInteger, nullable=False),
    )
    op.create_index("idempotency_keys_by_job", "idempotency_keys", ["job_id"])


def _attempts() -> None:
    op.create_table(
        "attempts",
        _job_id(),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("executor_id", sa.Text, nullable=False),
        sa.Column("session", sa.Text, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        sa.Column("next_chunk", sa.BigInteger, nullable=False),
        sa.Column("pid", sa.BigInteger),
        sa.Column("host", sa.Text),
        sa.Column("resumed_from", sa.Text),
        sa.Column("resumed_from_step", sa.BigInteger),
        sa.Column("started_us", sa.BigInteger),
        sa.Column("first_step_us", sa.BigInteger),
        sa.Column("ended_us", sa.BigInteger),
        sa.Column("reason", sa.Text),
        sa.Column("message", sa.Text),
        sa.Column("total_steps", sa.BigInteger),
        sa.Column("rate_from_step", sa.BigInteger),
        sa.Column("rate_from_us", sa.BigInteger),
    )


def _events_and_metrics() -> None:
    op.create_table(
        "events",
        _job_id(),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "metric_series",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.UniqueConstraint("job_id", "name", name="metric_series_by_name"),
    )
    op.create_table(
        "metric_points",
        sa.Column(
            "series_id",
            sa.BigInteger,
            sa.ForeignKey("metric_series.id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("step", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.Float, nullable=False),
        sa.Column("value", sa.Float),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )


def _of_attempt() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["job_id", "attempt"], ["attempts.job_id", "attempts.number"], ondelete="CASCADE"
    )


def _files() -> None:
    op.create_table(
        "checkpoints",
        sa.Column("job_id", sa.Text, primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("step", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.Float, nullable=False),
        sa.Column("prefix", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("metrics", sa.Text, nullable=False),
        sa.Column("is_best", sa.Boolean, nullable=False),
        sa.Column("has_train_state", sa.Boolean, nullable=False),
        sa.Column("is_removed", sa.Boolean, nullable=False),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        _of_attempt(),
    )
    op.create_table(
        "artifacts",
        sa.Column("job_id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("media_type", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("step", sa.BigInteger),
        sa.Column("epoch", sa.Float),
        sa.Column("created_us", sa.BigInteger, nullable=False),
        _of_attempt(),
    )
