"""How a study measures, as it declares it: extractor, reference set and number of samples."""

from dataclasses import dataclass

from service.studies.guard import measure_of
from service.studies.objective import tuned
from service.studies.pointers import encloses
from service.studies.request import StudyRequest
from workers.data import held_out_count
from workers.spec import TrainSpec

ROWS = 5000  # on both sides of a distance, or KID varies by more than the noises differ
SAMPLES, HELD_OUT = "/trainer/quality/samples", "/dataset/held_out_fraction"
_SPLIT_SEED = "/dataset/split_seed"


@dataclass(frozen=True, slots=True)
class Measured:
    """How a metric is measured; None what does not apply.

    ``samples`` are as many of the model, which are compared with ``reference_rows`` of the held-out
    data: as many, or all that there are.
    """

    metric: str
    extractor: str | None
    samples: int | None
    reference_rows: int | None
    reference: str | None
    reference_digest: str | None


def measured(request: StudyRequest, metric: str, count: int | None) -> Measured:
    """How the trials of a resolved request measure a metric; None for an unknown count of data."""
    spec, measure = request.spec, measure_of(metric)
    quality = spec.trainer.quality if isinstance(spec, TrainSpec) else None
    name = spec.data_name
    return Measured(
        metric=metric,
        extractor=None if measure is None else measure[1],
        samples=None if measure is None or quality is None else quality.samples,
        reference_rows=reference_rows(request, metric, count),
        reference=None if name is None else f"held-out data of {name}",
        reference_digest=spec.data_digest,
    )


def reference_rows(request: StudyRequest, metric: str, count: int | None) -> int | None:
    """How many of ``count`` data the samples of each model are compared with, held-out ones.

    None of a metric that compares no samples, where trials differ in it, and where the count is not
    known.
    """
    spec = request.spec
    quality = spec.trainer.quality if isinstance(spec, TrainSpec) else None
    if measure_of(metric) is None or quality is None or spec.dataset is None or count is None:
        return None
    for pointer in tuned(request):
        is_of_data = encloses("/dataset", pointer) and pointer != _SPLIT_SEED
        if is_of_data or encloses(pointer, SAMPLES):
            return None
    return min(held_out_count(count, spec.dataset.held_out_fraction), quality.samples)
