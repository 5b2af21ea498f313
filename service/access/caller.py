"""Who asks, and what he may change and use: values only."""

from dataclasses import dataclass

from service.access.keys import NO_LIMITS, ApiKey, KeyLimits, Scope


@dataclass(frozen=True, slots=True)
class Quota:
    """What an owner may have at most after a change; None: no bound."""

    owner: str
    running: int | None
    storage_bytes: int | None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. ``owner`` is None where no key is needed, and what is made then is nobody's."""

    owner: str | None = None
    key_id: str | None = None
    scope: Scope = Scope.ADMIN
    limits: KeyLimits = NO_LIMITS

    @classmethod
    def of(cls, key: ApiKey) -> "Caller":
        """Who holds a key."""
        return cls(key.owner, key.id, key.scope, key.limits)

    @property
    def may_change_all(self) -> bool:
        """Whether he may change everything, whoever's it is."""
        return self.scope is Scope.ADMIN

    def may_change(self, owner: str | None) -> bool:
        """Whether he may change what belongs to an owner: his own, an admin everything."""
        if self.may_change_all:
            return True
        return self.scope is Scope.WRITE and owner is not None and owner == self.owner

    @property
    def quota(self) -> Quota | None:
        """His bounds on what the store counts; None where he has none."""
        running, storage_bytes = self.limits.running, self.limits.storage_bytes
        if self.owner is None or (running is None and storage_bytes is None):
            return None
        return Quota(self.owner, running, storage_bytes)

    def named(self, idempotency_key: str) -> str:
        """His own name for a request: two owners may choose the same, which has no space."""
        return idempotency_key if self.owner is None else f"{self.owner} {idempotency_key}"


ANYBODY = Caller()
"""Who asks a service that needs no key: anybody on its machine, who may do everything."""
