"""The tables. Portable: integers, text and floats only; JSON is text, times are microseconds.

Times are UTC, counted from 1970-01-01. ``jobs.labels`` is the truth about labels and
``job_labels`` its index. A metric's name is stored once per job, as a series, so that a point
costs some thirty bytes.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
    or_,
    text,
)

METADATA = MetaData()

JOBS = Table(
    "jobs",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("labels", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("limits", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("spec_digest", Text, nullable=False),
    Column("trainer", Text, nullable=False),
    Column("dataset", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
    Column("ended_us", BigInteger),
    Column("last_seq", BigInteger, nullable=False),
    Column("step", BigInteger),
    Column("total_steps", BigInteger),
    Column("epoch", Float),
    Column("eta_s", Float),
    Column("dataset_digest", Text),
    # A fork knows its parent even when that is gone: no foreign key.
    Column("parent_job_id", Text),
    Column("parent_checkpoint_id", Text),
    Column("parent_prefix", Text),
    Column("parent_digest", Text),
    Column("parent_start", Text),
    # The defaults are those of revision 0003, for rows that were older.
    Column("pause_requested", Boolean, nullable=False, server_default=false()),
    Column("not_before_us", BigInteger),
    Column("counts_from", Integer, nullable=False, server_default=text("0")),
    # Seconds that the job asks to be kept after such an end; NULL: as the installation says.
    Column("keep_succeeded_s", Float),
    Column("keep_failed_s", Float),
    Column("keep_cancelled_s", Float),
    # The study that the job is a trial of, whose driver starts it; no foreign key, as trials refer
    # to jobs.
    Column("study_id", Text),
    # What the job's attempts continue, in W3C's form, where its submission was traced.
    Column("traceparent", Text),
    # Set when the job is deleted. From then on it is nobody's; its artifacts go, then its rows.
    Column("deleted_us", BigInteger),
    # Whose it is, NULL where no key was needed, and the room that it may need, by its estimate.
    Column("owner", Text),
    Column("reserved_bytes", BigInteger),
)
# Each filter of the list is answered in the list's own order, newest first; combined ones by the
# columns behind it, without a look at any job that does not match.
Index("jobs_by_time", JOBS.c.deleted_us, JOBS.c.created_us, JOBS.c.id)
Index(
    "jobs_by_state",
    JOBS.c.state,
    JOBS.c.created_us,
    JOBS.c.id,
    JOBS.c.trainer,
    JOBS.c.dataset,
    JOBS.c.deleted_us,
)
Index(
    "jobs_by_trainer",
    JOBS.c.trainer,
    JOBS.c.created_us,
    JOBS.c.id,
    JOBS.c.dataset,
    JOBS.c.deleted_us,
)
Index("jobs_by_dataset", JOBS.c.dataset, JOBS.c.created_us, JOBS.c.id, JOBS.c.deleted_us)
Index("jobs_by_dataset_digest", JOBS.c.dataset_digest)
Index("jobs_by_parent", JOBS.c.parent_job_id, JOBS.c.created_us, JOBS.c.id)
# Answers by itself how many jobs there are, which ones are to go, and which have been kept for as
# long as the installation says: trials are kept with their study.
Index(
    "jobs_by_end",
    JOBS.c.deleted_us,
    JOBS.c.state,
    JOBS.c.study_id,
    JOBS.c.ended_us,
    JOBS.c.keep_succeeded_s,
    JOBS.c.keep_failed_s,
    JOBS.c.keep_cancelled_s,
)
# Few jobs have times of their own; these alone are looked through for those that are over.
_HAS_OWN_TIME = or_(
    JOBS.c.keep_succeeded_s.is_not(None),
    JOBS.c.keep_failed_s.is_not(None),
    JOBS.c.keep_cancelled_s.is_not(None),
)
Index(
    "jobs_by_own_end",
    JOBS.c.deleted_us,
    JOBS.c.state,
    JOBS.c.study_id,
    JOBS.c.ended_us,
    JOBS.c.keep_succeeded_s,
    JOBS.c.keep_failed_s,
    JOBS.c.keep_cancelled_s,
    JOBS.c.id,  # or SQLite takes the one above, and looks through all
    sqlite_where=_HAS_OWN_TIME,
    postgresql_where=_HAS_OWN_TIME,
)
Index("jobs_by_turn", JOBS.c.state, JOBS.c.priority.desc(), JOBS.c.created_us, JOBS.c.id)
# Answers by itself what an owner's limits are about.
Index(
    "jobs_by_owner",
    JOBS.c.owner,
    JOBS.c.deleted_us,
    JOBS.c.state,
    JOBS.c.study_id,
    JOBS.c.reserved_bytes,
)
# The watcher asks in each of its rounds for the few that wait and are to be cancelled or paused.
HAS_WISH = or_(JOBS.c.cancel_requested, JOBS.c.pause_requested)
Index("jobs_by_wish", JOBS.c.state, sqlite_where=HAS_WISH, postgresql_where=HAS_WISH)
Index("jobs_by_study", JOBS.c.study_id, JOBS.c.created_us, JOBS.c.id)

LABELS = Table(
    "job_labels",
    METADATA,
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
)
Index("labels_by_value", LABELS.c.key, LABELS.c.value, LABELS.c.created_us, LABELS.c.job_id)
Index("labels_by_key", LABELS.c.key, LABELS.c.created_us, LABELS.c.job_id)

IDEMPOTENCY_KEYS = Table(
    "idempotency_keys",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("body_digest", Text, nullable=False),
    # Deferred, because the key is claimed before its job is inserted.
    Column(
        "job_id",
        Text,
        ForeignKey("jobs.id", ondelete="CASCADE", deferrable=True, initially="DEFERRED"),
        nullable=False,
    ),
    Column("created_us", BigInteger, nullable=False),
)
Index("idempotency_keys_by_job", IDEMPOTENCY_KEYS.c.job_id)

INSTALLATION = Table(
    "installation",
    METADATA,
    Column("only", Integer, CheckConstraint('"only" = 1'), primary_key=True),
    Column("id", Text, nullable=False),
)

# The lease of the service that leads, where several share a database.
LEADERSHIP = Table(
    "leadership",
    METADATA,
    Column("only", Integer, CheckConstraint('"only" = 1'), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("service", Text, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
)

API_KEYS = Table(
    "api_keys",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("max_running", Integer),
    Column("max_storage_bytes", BigInteger),
    Column("requests_per_s", Float),
    Column("created_us", BigInteger, nullable=False),
    Column("revoked_us", BigInteger),
)
Index("api_keys_by_owner", API_KEYS.c.owner)

# Who did what. A row is stored before the deed, and its answer once, after it; nothing else ever
# changes, and only the oldest go.
AUDIT = Table(
    "audit",
    METADATA,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("owner", Text),
    Column("key_id", Text),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("client", Text, nullable=False),
    Column("status", Integer),
    Column("made", Text),
)
Index("audit_by_time", AUDIT.c.at_us)
Index("audit_by_owner", AUDIT.c.owner, AUDIT.c.seq)

DATASETS = Table(
    "datasets",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("shape", Text, nullable=False),
    Column("dtype", Text, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("is_image", Boolean, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("source_format", Text, nullable=False),
    Column("source_digest", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("owner", Text),
)
Index("datasets_by_digest", DATASETS.c.digest)
Index("datasets_by_owner", DATASETS.c.owner)

ATTEMPTS = Table(
    "attempts",
    METADATA,
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("executor_id", Text, nullable=False),
    Column("session", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("next_chunk", BigInteger, nullable=False),
    Column("pid", BigInteger),
    Column("host", Text),
    Column("resumed_from", Text),
    Column("resumed_from_step", BigInteger),
    Column("started_us", BigInteger),
    Column("first_step_us", BigInteger),
    Column("ended_us", BigInteger),
    Column("reason", Text),
    Column("message", Text),
    # What the remaining time is computed from: the rate of this attempt since this point.
    Column("total_steps", BigInteger),
    Column("rate_from_step", BigInteger),
    Column("rate_from_us", BigInteger),
    # What explains it: its last word, how far it came, its memory, the end of its process.
    Column("heard_us", BigInteger),
    Column("last_step", BigInteger),
    Column("peak_rss_bytes", BigInteger),
    Column("exit", Text),
)
Index("attempts_by_time", ATTEMPTS.c.created_us)

EVENTS = Table(
    "events",
    METADATA,
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("data", Text, nullable=False),
    sqlite_with_rowid=False,
)

SERIES = Table(
    "metric_series",
    METADATA,
    # SQLite numbers only a plain INTEGER by itself, and its INTEGER has 64 bits.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    UniqueConstraint("job_id", "name", name="metric_series_by_name"),
)

POINTS = Table(
    "metric_points",
    METADATA,
    Column(
        "series_id",
        BigInteger,
        ForeignKey("metric_series.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("attempt", Integer, primary_key=True),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("epoch", Float, nullable=False),
    # NULL is NaN, which SQLite cannot store.
    Column("value", Float),
    Column("at_us", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

CHECKPOINTS = Table(
    "checkpoints",
    METADATA,
    Column("job_id", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("step", BigInteger, nullable=False),
    Column("epoch", Float, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("metrics", Text, nullable=False),
    Column("is_best", Boolean, nullable=False),
    Column("has_train_state", Boolean, nullable=False),
    Column("is_removed", Boolean, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    ForeignKeyConstraint(
        ["job_id", "attempt"], ["attempts.job_id", "attempts.number"], ondelete="CASCADE"
    ),
)

ARTIFACTS = Table(
    "artifacts",
    METADATA,
    Column("job_id", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("key", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("step", BigInteger),
    Column("epoch", Float),
    Column("created_us", BigInteger, nullable=False),
    ForeignKeyConstraint(
        ["job_id", "attempt"], ["attempts.job_id", "attempts.number"], ondelete="CASCADE"
    ),
)

STUDIES = Table(
    "studies",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("is_overridden", Boolean, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    Column("pause_requested", Boolean, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
    Column("ended_us", BigInteger),
    # The numbers of its last trial and result; who raises them holds the study's row.
    Column("last_trial", Integer, nullable=False),
    Column("last_result", BigInteger, nullable=False),
    # Set when the study is deleted; its row goes with the last of its trials' jobs.
    Column("deleted_us", BigInteger),
    # Whose it is, and the room that all its trials may need.
    Column("owner", Text),
    Column("reserved_bytes", BigInteger),
    # The content that its base pins, which it keeps before it has any trial.
    Column("dataset_digest", Text),
)
Index("studies_by_dataset_digest", STUDIES.c.dataset_digest)
Index("studies_by_owner", STUDIES.c.owner, STUDIES.c.state)
Index("studies_by_time", STUDIES.c.created_us, STUDIES.c.id)
Index("studies_by_state", STUDIES.c.state, STUDIES.c.created_us, STUDIES.c.id)

STUDY_KEYS = Table(
    "study_keys",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("body_digest", Text, nullable=False),
    # Deferred, because the key is claimed before its study is inserted.
    Column(
        "study_id",
        Text,
        ForeignKey("studies.id", ondelete="CASCADE", deferrable=True, initially="DEFERRED"),
        nullable=False,
    ),
    Column("created_us", BigInteger, nullable=False),
)
Index("study_keys_by_study", STUDY_KEYS.c.study_id)

TRIALS = Table(
    "trials",
    METADATA,
    Column("study_id", Text, ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("configuration", Integer, nullable=False),
    Column("values", Text, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("phase", Text, nullable=False),
    Column("job_id", Text, ForeignKey("jobs.id"), nullable=False),
    UniqueConstraint("study_id", "configuration", "seed", name="trials_by_configuration"),
    UniqueConstraint("job_id", name="trials_by_job"),
)

TRIAL_RESULTS = Table(
    "trial_results",
    METADATA,
    Column("study_id", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("trial", Integer, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("metrics", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    ForeignKeyConstraint(
        ["study_id", "trial"], ["trials.study_id", "trials.number"], ondelete="CASCADE"
    ),
    UniqueConstraint("study_id", "trial", "epoch", name="trial_results_by_epoch"),
)
