"""The job store: jobs, attempts, events and results in a database.

The database is the truth about jobs. ``schema`` has the tables and ``migrations`` how they came
about; ``submitting``, ``watching`` and ``ingesting`` write, ``reading`` and ``listing`` read.
``ledger`` has the studies, ``lease`` who leads.
"""

from service.jobstore.lease import Lease
from service.jobstore.place import database_file, is_in_memory
from service.jobstore.store import JobStore
from service.jobstore.submitting import Idempotency

__all__ = ["Idempotency", "JobStore", "Lease", "database_file", "is_in_memory"]
