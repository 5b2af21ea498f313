"""API keys in the database; what there is of a key is its digest."""

from typing import Any

from sqlalchemy import Row, insert, select, update

from service.access.keys import ApiKey, KeyLimits, Scope
from service.errors import KeyNotFound
from service.jobstore.database import Database
from service.jobstore.rows import from_us, to_us
from service.jobstore.schema import API_KEYS
from service.jobstore.writing import now_us


class Keys:
    """For many threads at once; each method is one transaction, and raises NotReady when the
    database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, key: ApiKey) -> None:
        """Store a new key."""
        with self._database.write() as connection:
            connection.execute(insert(API_KEYS).values(_to_row(key)))

    def all(self) -> list[ApiKey]:
        """Every key that was ever made, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(API_KEYS).order_by(API_KEYS.c.created_us, API_KEYS.c.id)
            )
            return [_to_key(row) for row in rows]

    def revoke(self, key_id: str) -> ApiKey:
        """Let a key open nothing any more; asking twice is safe. Raises KeyNotFound."""
        with self._database.write() as connection:
            connection.execute(
                update(API_KEYS)
                .where(API_KEYS.c.id == key_id, API_KEYS.c.revoked_us.is_(None))
                .values(revoked_us=now_us())
            )
            row = connection.execute(select(API_KEYS).where(API_KEYS.c.id == key_id)).first()
        if row is None:
            raise KeyNotFound(f"there is no key {key_id}; spreadtrain keys list shows them")
        return _to_key(row)


def _to_row(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "owner": key.owner,
        "scope": key.scope.value,
        "digest": key.digest,
        "max_running": key.limits.running,
        "max_storage_bytes": key.limits.storage_bytes,
        "requests_per_s": key.limits.requests_per_s,
        "created_us": to_us(key.created_at),
        "revoked_us": None if key.revoked_at is None else to_us(key.revoked_at),
    }


def _to_key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        owner=row.owner,
        scope=Scope(row.scope),
        digest=row.digest,
        created_at=from_us(row.created_us),
        limits=KeyLimits(row.max_running, row.max_storage_bytes, row.requests_per_s),
        revoked_at=None if row.revoked_us is None else from_us(row.revoked_us),
    )
