"""Who did what, in the database. Entries are added; but for their answer none ever changes."""

from typing import Any

from sqlalchemy import Connection, Row, delete, insert, or_, select, update

from service.access.audit import AuditEntry, AuditPage, Deed
from service.jobstore.database import Database
from service.jobstore.rows import from_us
from service.jobstore.schema import AUDIT
from service.jobstore.writing import now_us

PRUNED_EVERY = 256  # entries
SECOND_US = 1_000_000


class Audit:
    """For many threads at once; each method is one transaction, and raises NotReady when the
    database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, deed: Deed, keep_s: float, keep_most: int) -> int:
        """Store what is about to be done; its number. Older entries go, once in a while."""
        with self._database.write() as connection:
            seq = _add(connection, deed)
            if seq % PRUNED_EVERY == 0:
                before_us = now_us() - int(keep_s * SECOND_US)
                old = or_(AUDIT.c.at_us < before_us, AUDIT.c.seq <= seq - keep_most)
                connection.execute(delete(AUDIT).where(old))
            return seq

    def end(self, seq: int, status: int, made: str | None) -> None:
        """Store the answer, once."""
        with self._database.write() as connection:
            connection.execute(
                update(AUDIT)
                .where(AUDIT.c.seq == seq, AUDIT.c.status.is_(None))
                .values(status=status, made=made)
            )

    def page(self, owner: str | None, before: int | None, limit: int) -> AuditPage:
        """At most so many entries with a number below ``before``, newest first, of one owner or
        of all."""
        statement = select(AUDIT).order_by(AUDIT.c.seq.desc()).limit(limit + 1)
        if owner is not None:
            statement = statement.where(AUDIT.c.owner == owner)
        if before is not None:
            statement = statement.where(AUDIT.c.seq < before)
        with self._database.read() as connection:
            found = [_to_entry(row) for row in connection.execute(statement)]
        next_before = found[limit - 1].seq if len(found) > limit else None
        return AuditPage(tuple(found[:limit]), next_before)


def _add(connection: Connection, deed: Deed) -> int:
    row = {
        "at_us": now_us(),
        "owner": deed.owner,
        "key_id": deed.key_id,
        "action": deed.action,
        "target": deed.target,
        "request_id": deed.request_id,
        "client": deed.client,
    }
    added = connection.execute(insert(AUDIT).values(row).returning(AUDIT.c.seq))
    return int(added.scalar_one())


def _to_entry(row: Row[Any]) -> AuditEntry:
    return AuditEntry(
        seq=row.seq,
        at=from_us(row.at_us),
        deed=Deed(row.owner, row.key_id, row.action, row.target, row.request_id, row.client),
        status=row.status,
        made=row.made,
    )
