"""The data that jobs were trained on, ready for those who look at results."""

import threading
from collections import OrderedDict
from pathlib import Path

from service.errors import NotReady, ResultNotFound
from workers.artifacts import ArtifactStore
from workers.data import Dataset, load
from workers.errors import DataError, StoreError
from workers.spec import AnyDataset

KEPT = 4  # large ones are mapped files; those in memory have some megabytes each
LOADS_AT_ONCE = 2
PATIENCE_S = 5.0  # the first load of a large data set takes minutes, and threads are few

DatasetRef = AnyDataset


class JobData:
    """Data sets by what a job's spec pins; the last few are kept, the others loaded again.

    One that is missing is loaded once, however many ask for it. ``cache_dir`` is where data sets
    are looked for and kept, ``artifacts`` where uploads are.
    """

    def __init__(
        self, cache_dir: Path, artifacts: ArtifactStore, patience_s: float = PATIENCE_S
    ) -> None:
        self._cache_dir = cache_dir
        self._artifacts = artifacts
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._kept: OrderedDict[DatasetRef, Dataset] = OrderedDict()
        self._loading: dict[DatasetRef, threading.Lock] = {}
        self._turns = threading.BoundedSemaphore(LOADS_AT_ONCE)

    def get(self, ref: DatasetRef) -> Dataset:
        """The data set of a job's spec.

        Raises ResultNotFound that says why the data cannot be had, and NotReady while another
        request still loads them, or the store does not answer.
        """
        with self._lock:
            if (kept := self._find(ref)) is not None:
                return kept
            loading = self._loading.setdefault(ref, threading.Lock())
        if not loading.acquire(timeout=self._patience_s):
            raise NotReady("the data of this job are still being fetched; try again soon")
        try:
            with self._lock:
                if (kept := self._find(ref)) is not None:
                    return kept
            data = self._load_in_turn(ref)
            with self._lock:
                self._kept[ref] = data
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            return data
        finally:
            loading.release()
            with self._lock:
                self._loading.pop(ref, None)

    def _find(self, ref: DatasetRef) -> Dataset | None:
        if ref in self._kept:
            self._kept.move_to_end(ref)
        return self._kept.get(ref)

    def _load_in_turn(self, ref: DatasetRef) -> Dataset:
        if not self._turns.acquire(timeout=self._patience_s):
            raise NotReady("data of other jobs are being fetched; try again soon")
        try:
            return load(ref, self._cache_dir, self._artifacts)
        except DataError as error:
            raise ResultNotFound(f"there are no real data to show: {error}") from error
        except StoreError as error:
            raise NotReady("the artifact store does not answer; try again soon") from error
        finally:
            self._turns.release()
