"""Access to the service: its keys, the pace of each, and the record of who did what."""

import logging

from service.access.audit import KEPT_MOST, AuditPage, Deed
from service.access.keys import Keyring
from service.access.rates import Rates
from service.errors import NotReady
from service.jobstore import JobStore

log = logging.getLogger(__name__)

AUDIT_KEEP_S = 31_536_000.0  # a year


class Access:
    """What the entrance asks before a request is served."""

    def __init__(
        self, jobs: JobStore, audit_keep_s: float = AUDIT_KEEP_S, rates: Rates | None = None
    ) -> None:
        self._jobs = jobs
        self._audit_keep_s = audit_keep_s
        self.rates = rates or Rates()

    def keyring(self) -> Keyring:
        """The keys as they are now; raises NotReady."""
        return Keyring(self._jobs.keys.all())

    def begin(self, deed: Deed) -> int:
        """Record what is about to be done; its number. Raises NotReady, and then it must not be
        done."""
        return self._jobs.audit.begin(deed, self._audit_keep_s, KEPT_MOST)

    def end(self, seq: int, status: int, made: str | None) -> None:
        """Record how it was answered, as far as the database lets that be."""
        try:
            self._jobs.audit.end(seq, status, made)
        except NotReady as error:
            log.warning("the answer to entry %d of the audit was not recorded: %s", seq, error)

    def audit(self, owner: str | None, before: int | None, limit: int) -> AuditPage:
        """Entries with a number below ``before``, newest first, of one owner or of all."""
        return self._jobs.audit.page(owner, before, limit)
