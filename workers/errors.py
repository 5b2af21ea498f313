"""The WorkerError tree.

::

    WorkerError
    ├── VersionMismatch       the node runs other versions than the service
    ├── DataError             the data cannot be used
    │   ├── UnknownDataset    no data set of that name
    │   ├── DatasetUnavailable  known, but its files are not on this machine
    │   ├── DatasetChanged    the content is not what the job pinned
    │   ├── InvalidUpload     an uploaded file that is no data set
    │   ├── NoRoom            the disk is full
    │   └── Interrupted       the service stopped before an upload was checked
    ├── SpecMismatch          a spec that is well formed but does not fit its data
    ├── InvalidSpread         noise that is no valid spread
    ├── Diverged              the numbers left the reals
    ├── Unfit                 data without such a decomposition (workers.ica.failures)
    ├── CheckpointError       a checkpoint that cannot be read
    ├── ExtractorUnavailable  the weights of a feature extractor are not on this node
    ├── TracingUnavailable    spans cannot be made or delivered from here
    ├── ClaimLost             another writer has ended this attempt
    ├── PeerLost              another worker of the same run is gone
    └── StoreError            the artifact store failed
        ├── StoreAway         it cannot be reached, or is too busy: another time it may answer
        ├── ArtifactNotFound
        ├── ArtifactExists    a key is immutable and already written
        ├── StoreFull         no room is left where it keeps its objects
        └── StoreNotShared    it is a folder, and this node has none or another one

A class docstring is the default message and says what to do next.
"""


class WorkerError(Exception):
    """The worker could not go on; read the attempt's log."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class DataError(WorkerError):
    """The data set cannot be used; see GET /v1/datasets for the ones that can."""


class UnknownDataset(DataError):
    """There is no data set of that name; see GET /v1/datasets."""


class DatasetUnavailable(DataError):
    """The data set is known, but its files are not on this machine; install them and try again."""


class DatasetChanged(DataError):
    """The data set is not what the job pinned; submit the job again to use the new content."""


class InvalidUpload(DataError):
    """The file is no data set; send npz, idx, csv, or a zip of PNG or JPEG pictures."""


class NoRoom(DataError):
    """The disk is full; make room and try again."""


class Interrupted(DataError):
    """The service was stopped before the upload was checked; upload it again."""


class SpecMismatch(WorkerError):
    """The spec does not fit its data.

    ``pointer`` is the JSON pointer of the offending field inside the spec.
    """

    def __init__(self, pointer: str, message: str) -> None:
        super().__init__(message)
        self.pointer = pointer


class InvalidSpread(WorkerError):
    """This noise is no valid spread: its density must be positive everywhere, and no two
    distributions may have the same spread."""


class Diverged(WorkerError):
    """Training diverged; try a smaller learning rate, or gradient clipping."""

    def __init__(self, step: int, message: str) -> None:
        super().__init__(message)
        self.step = step


class CheckpointError(WorkerError):
    """The checkpoint cannot be read; choose another one."""


class ExtractorUnavailable(WorkerError):
    """This node lacks the weights of a feature extractor; install them on every node, or leave it
    out of trainer.quality.features."""


class TracingUnavailable(WorkerError):
    """Tracing needs OpenTelemetry's SDK: pip install 'spreadtrain[tracing]', on every node."""


class ClaimLost(WorkerError):
    """This attempt was ended by the service, so it may not publish any more."""


class PeerLost(WorkerError):
    """Another worker of this run is gone; retry the job, and it goes on from a checkpoint."""


class StoreError(WorkerError):
    """The artifact store failed; see GET /readyz."""


class StoreAway(StoreError):
    """The artifact store cannot be reached; see GET /readyz, and try again."""


class ArtifactNotFound(StoreError):
    """The artifact store holds nothing under that key."""


class ArtifactExists(StoreError):
    """That key is taken in the artifact store; keys are never rewritten."""


class StoreFull(StoreError):
    """The disk of the artifact store is full; make room on it."""


class StoreNotShared(StoreError):
    """This node does not share the artifact folder; use s3://, or mount it on every node."""


class VersionMismatch(WorkerError):
    """This node runs other versions than the service; install the same on every node."""
