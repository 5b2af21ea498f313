"""API keys as values. A key is a secret; what is kept of it is its SHA-256.

A key that is made here has 256 random bits. Nobody guesses it, however fast he hashes, so a slow
hash, which passwords need, would only make each request slower.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

OWNER = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
PREFIX = "spreadtrain_"  # by which scanners of repositories find a key that was lost there
SECRET_BYTES = 32
# A key from a file may be anybody's; as many characters of ``openssl rand -hex`` are 128 bits.
_USABLE = re.compile(r"[\x21-\x7e]{32,512}")
_ID_DIGITS = 16


class Scope(StrEnum):
    """What a key is for; each may do what those before it may."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    def includes(self, other: "Scope") -> bool:
        """Whether who has this scope may do what needs the other."""
        order = list(Scope)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """Bounds on what one key may use; None: none.

    ``running`` are the owner's jobs that run or wait to run, a study counting as many as it runs
    at one time. ``storage_bytes`` are the owner's artifacts and uploads. ``requests_per_s`` are
    answered by each process of the service.
    """

    running: int | None = None
    storage_bytes: int | None = None
    requests_per_s: float | None = None


NO_LIMITS = KeyLimits()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is stored.

    ``id`` is the beginning of ``digest`` and no secret. What is made with the key belongs to its
    ``owner``; an owner may have several keys, so that one can replace another.
    """

    id: str
    owner: str
    scope: Scope
    digest: str
    created_at: datetime
    limits: KeyLimits = NO_LIMITS
    revoked_at: datetime | None = None


def new_secret() -> str:
    """A key that nobody has yet."""
    return f"{PREFIX}{secrets.token_urlsafe(SECRET_BYTES)}"


def is_usable(secret: str) -> bool:
    """Whether a text can be a key: 32 to 512 printable characters of ASCII without spaces."""
    return _USABLE.fullmatch(secret) is not None


def digest_of(secret: str) -> str:
    """What is kept of a key: SHA-256 in hexadecimal digits."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def id_of(digest: str) -> str:
    """The name of a key in lists and records."""
    return digest[:_ID_DIGITS]


class Keyring:
    """All keys at one moment; ``is_open`` while none was ever made."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        stored = list(keys)
        self.is_open = not stored
        self._live = {key.id: key for key in stored if key.revoked_at is None}

    def find(self, secret: str) -> ApiKey | None:
        """The live key with that secret.

        It is found by the beginning of its digest, which who guesses cannot steer, and compared
        in a time that does not depend on where it differs.
        """
        digest = digest_of(secret)
        key = self._live.get(id_of(digest))
        if key is None or not hmac.compare_digest(key.digest, digest):
            return None
        return key

    def holds(self, key_id: str) -> bool:
        """Whether the key lives."""
        return key_id in self._live

    @property
    def has_live_keys(self) -> bool:
        """Whether there is a key that opens anything."""
        return bool(self._live)
