"""Finds what nobody needs in the artifact store and on this machine, and removes it.

What a crash, a kill or a lost connection can leave is listed in KINDS. Everything here is careful
in two ways. What was changed within the grace time, by the store's own clock, is left alone. And
whether anybody needs a thing is asked after it was listed: rows are written before what they
announce, so what a row does not know by then was never announced, or is not needed any more.
"""

from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Literal, get_args

from service.custody import Custody
from service.datasets import Datasets
from service.jobstore import JobStore
from service.ownership import check_owner, claim
from workers.artifacts import ArtifactStore, Stored, attempt_prefix, job_prefix
from workers.artifacts.leftovers import leftovers_below, remove_leftover
from workers.data import catalogue
from workers.data.kept import KeptArray, kept_arrays
from workers.errors import StoreAway, StoreError

Kind = Literal["job", "attempt", "data_set", "unfinished", "probe", "cache"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FINDINGS_MAX = 200  # are shown; all are counted
AT_ONCE = 200  # objects in one request, and between two pauses


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that nobody needs: objects below a name, or a file."""

    kind: Kind
    name: str
    why: str
    count: int
    size_bytes: int


@dataclass
class Report:
    """What a sweep has found so far, and what became of it.

    ``counts`` and ``sizes`` are totals by kind; ``findings`` the first of them. ``denied`` is why
    the first of what could not be removed was not.
    """

    number: int
    dry_run: bool
    started_at: datetime
    state: Literal["running", "done", "failed"] = "running"
    ended_at: datetime | None = None
    error: str | None = None
    denied: str | None = None
    counts: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    sizes: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    findings: list[Finding] = field(default_factory=list)

    def add(self, kind: Kind, name: str, why: str, count: int, size_bytes: int) -> None:
        """Note a finding."""
        self.counts[kind] += count
        self.sizes[kind] += size_bytes
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(kind, name, why, count, size_bytes))


class Sweep:
    """Sweeps one artifact store and this machine's cache. ``reclaimed_bytes`` counts up."""

    def __init__(
        self,
        jobs: JobStore,
        artifacts: ArtifactStore,
        datasets: Datasets,
        cache_dir: Path,
        grace_s: float,
    ) -> None:
        self._jobs = jobs
        self._artifacts = artifacts
        self._datasets = datasets
        self._cache_dir = cache_dir
        self._grace = timedelta(seconds=grace_s)
        self.reclaimed_bytes = 0

    def claim(self) -> None:
        """Let the store belong to this installation; raises as :func:`claim` does."""
        claim(self._jobs, self._artifacts)

    def steps(self, report: Report) -> Iterator[None]:
        """Find, and unless it is a dry run remove, in small steps; raises StoreError, also where
        the store is another installation's, and NotReady."""
        check_owner(self._jobs, self._artifacts)
        yield from self.steps_before(report, self._artifacts.now() - self._grace)

    def steps_before(self, report: Report, before: datetime) -> Iterator[None]:
        """As :meth:`steps`, of what was last changed before a time by the store's clock."""
        yield from self._unfinished(report, before)
        yield from self._of_jobs(report, before)
        yield from self._of_data_sets(report, before)
        yield from self._probes(report, before)
        # The cache is of this machine, and so is its clock.
        yield from self._cache(report, datetime.now(UTC) - self._grace)

    def _note(
        self, report: Report, kind: Kind, name: str, why: str, count: int, size_bytes: int
    ) -> None:
        report.add(kind, name, why, count, size_bytes)
        if not report.dry_run:
            self.reclaimed_bytes += size_bytes

    def _delete(self, report: Report, keys: Sequence[str]) -> None:
        with _going_on(report):
            self._artifacts.delete_many(keys)

    # --- jobs ---------------------------------------------------------------------------------

    def _of_jobs(self, report: Report, before: datetime) -> Iterator[None]:
        for job_id, objects in groupby(self._artifacts.list("jobs"), _second_part):
            # The first object of the group is listed by now, so its job's row is there, or never.
            custody = self._jobs.custody(job_id)
            yield
            if custody is None:
                yield from self._of_no_job(report, before, job_id, objects)
            else:
                yield from self._of_a_job(report, before, custody, objects)

    def _of_no_job(
        self, report: Report, before: datetime, job_id: str, objects: Iterable[Stored]
    ) -> Iterator[None]:
        """Objects under the id of no job; while any of them is young, all are left alone."""
        count, size_bytes, is_young = 0, 0, False
        for stored in objects:
            count, size_bytes = count + 1, size_bytes + stored.size_bytes
            is_young = is_young or stored.modified_at >= before
            if count % AT_ONCE == 0:
                yield
        if is_young or self._jobs.custody(job_id) is not None:
            return
        prefix = job_prefix(job_id)
        self._note(report, "job", prefix, "there is no such job", count, size_bytes)
        if not report.dry_run:
            yield from self._remove_old(report, prefix, before)

    def _of_a_job(
        self, report: Report, before: datetime, custody: Custody, objects: Iterable[Stored]
    ) -> Iterator[None]:
        """Checkpoints and files of attempts that have ended, which no row knows."""
        orphans: list[str] = []
        for number, stored in enumerate(objects, 1):
            why = custody.why_orphaned(stored.key)
            if why is not None and stored.modified_at < before:
                self._note(report, "attempt", stored.key, why, 1, stored.size_bytes)
                orphans.append(stored.key)
            if number % AT_ONCE == 0:
                self._remove(report, orphans)
                yield
        self._remove(report, orphans)

    def _remove(self, report: Report, keys: list[str]) -> None:
        if keys and not report.dry_run:
            self._delete(report, keys)
        keys.clear()

    def _remove_old(self, report: Report, prefix: str, before: datetime) -> Iterator[None]:
        """Remove what is under a prefix and was last changed before a time."""
        keys: list[str] = []
        for stored in self._artifacts.list(prefix):
            if stored.modified_at < before:
                keys.append(stored.key)
            if len(keys) >= AT_ONCE:
                self._delete(report, keys)
                keys = []
                yield
        self._delete(report, keys)
        with _going_on(report):
            self._artifacts.prune(prefix, before)
        yield

    # --- uploads, unfinished writes, probes ---------------------------------------------------

    def _of_data_sets(self, report: Report, before: datetime) -> Iterator[None]:
        for digits, objects in groupby(self._artifacts.list("datasets"), _second_part):
            found = list(objects)  # two, of one content
            digest = f"sha256:{digits}"
            is_old = all(stored.modified_at < before for stored in found)
            if not is_old or self._jobs.is_content_used(digest):
                continue
            if not report.dry_run:
                is_gone = False
                with _going_on(report):
                    is_gone = self._datasets.discard_unused(digest)
                if not is_gone:
                    continue
            size_bytes = sum(stored.size_bytes for stored in found)
            why = "no name, job or study refers to the content"
            self._note(report, "data_set", f"datasets/{digits}", why, len(found), size_bytes)
            yield

    def _unfinished(self, report: Report, before: datetime) -> Iterator[None]:
        at_work = tuple(f"{attempt_prefix(job.id, job.attempt)}/" for job in self._jobs.at_work())
        for write in self._artifacts.unfinished():
            if write.touched_at >= before or write.name.startswith(at_work):
                continue
            why = "a write that was begun and not ended"
            self._note(report, "unfinished", write.name, why, 1, write.size_bytes)
            if not report.dry_run:
                with _going_on(report):
                    self._artifacts.discard(write)
            yield

    def _probes(self, report: Report, before: datetime) -> Iterator[None]:
        for stored in self._artifacts.list("probes"):
            if stored.modified_at < before:
                why = "a test of the store that was cut off"
                self._note(report, "probe", stored.key, why, 1, stored.size_bytes)
                if not report.dry_run:
                    self._delete(report, [stored.key])
                yield
        if not report.dry_run:
            with _going_on(report):
                self._artifacts.prune("probes", before)
        yield

    # --- this machine's cache -----------------------------------------------------------------

    def _cache(self, report: Report, before: datetime) -> Iterator[None]:
        for left in leftovers_below(self._cache_dir):
            if left.touched_at < before:
                why = "a download that was cut off"
                self._drop(report, left.path, why, left.size_bytes)
            yield
        built_in = {info.digest for info in catalogue(self._cache_dir)}
        for kept in kept_arrays(self._cache_dir):
            try:
                status = kept.path.stat()
            except FileNotFoundError:
                continue
            is_old = datetime.fromtimestamp(status.st_mtime, UTC) < before
            unused = self._why_unused(kept, built_in) if is_old else None
            if unused is not None:
                self._drop(report, kept.path, unused, status.st_size)
            yield

    def _why_unused(self, kept: KeptArray, built_in: Set[str]) -> str | None:
        """Why nobody needs a kept array, or None. One who begins to after that makes it again."""
        if kept.digest not in built_in and not self._jobs.is_content_used(kept.digest):
            return "no name, job or study refers to the data"
        seed = kept.split_seed
        if seed is None or self._jobs.is_split_used(kept.digest, seed):
            return None
        return "no job under way splits the data so; it is made again for one that does"

    def _drop(self, report: Report, path: Path, why: str, size_bytes: int) -> None:
        name = path.relative_to(self._cache_dir).as_posix()
        self._note(report, "cache", name, why, 1, size_bytes)
        if not report.dry_run:
            remove_leftover(path)


@contextmanager
def _going_on(report: Report) -> Iterator[None]:
    """What the store denies of one thing, holds up no other; raises StoreAway."""
    try:
        yield
    except StoreAway:
        raise
    except StoreError as error:
        report.denied = report.denied or str(error)


def _second_part(stored: Stored) -> str:
    return stored.key.split("/", 2)[1]
