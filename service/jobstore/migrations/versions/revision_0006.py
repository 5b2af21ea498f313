"""What explains an attempt: its last word, how far it came, its memory, its process's end."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the columns; of attempts of before, nothing of it is known."""
    for name in ("heard_us", "last_step", "peak_rss_bytes"):
        op.add_column("attempts", sa.Column(name, sa.BigInteger))
    op.add_column("attempts", sa.Column("exit", sa.Text))
    op.create_index("attempts_by_time", "attempts", ["created_us"])
