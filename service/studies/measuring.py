"""How a study measures, as it declares it: extractor, reference set and number of samples."""

from dataclasses import dataclass

from service.studies.guard import measure_of
from service.studies.request import StudyRequest
from workers.spec import TrainSpec


@dataclass(frozen=True, slots=True)
class Measured:
    """How a metric is measured; None what does not apply.

    ``samples`` are as many of the model, and at most as many of the held-out data.
    """

    metric: str
    extractor: str | None
    samples: int | None
    reference: str | None
    reference_digest: str | None


def measured(request: StudyRequest, metric: str) -> Measured:
    """How the trials of a resolved request measure a metric."""
    spec, measure = request.spec, measure_of(metric)
    quality = spec.trainer.quality if isinstance(spec, TrainSpec) else None
    name = spec.data_name
    return Measured(
        metric=metric,
        extractor=None if measure is None else measure[1],
        samples=None if measure is None or quality is None else quality.samples,
        reference=None if name is None else f"held-out data of {name}",
        reference_digest=spec.data_digest,
    )
