"""Making and revoking keys, each on record."""

from datetime import UTC, datetime

from service.access.audit import BY_COMMAND, KEPT_MOST, Deed
from service.access.keys import NO_LIMITS, ApiKey, KeyLimits, Scope, digest_of, id_of
from service.jobstore import JobStore


def stored_key(secret: str, owner: str, scope: Scope, limits: KeyLimits = NO_LIMITS) -> ApiKey:
    """What is kept of a key that is new."""
    digest = digest_of(secret)
    return ApiKey(id_of(digest), owner, scope, digest, datetime.now(UTC), limits)


def make(jobs: JobStore, key: ApiKey, by: str, keep_s: float) -> None:
    """Store a key; ``by`` says who did, for the record."""
    deed = Deed(None, None, "keys create", f"{key.id} {key.owner} {key.scope}", "", by)
    seq = jobs.audit.begin(deed, keep_s, KEPT_MOST)
    jobs.keys.add(key)
    jobs.audit.end(seq, BY_COMMAND, None)


def revoke(jobs: JobStore, key_id: str, by: str, keep_s: float) -> ApiKey:
    """Let a key open nothing any more; raises KeyNotFound."""
    deed = Deed(None, None, "keys revoke", key_id, "", by)
    seq = jobs.audit.begin(deed, keep_s, KEPT_MOST)
    revoked = jobs.keys.revoke(key_id)
    jobs.audit.end(seq, BY_COMMAND, None)
    return revoked
