"""What a fit of a resolved spec needs, by arithmetic, and which data it can be asked of."""

from workers.costs import Estimate
from workers.data import DatasetInfo, held_out_count
from workers.errors import SpecMismatch
from workers.ica.asked import iterations_of, options_of
from workers.ica.counting import MOST
from workers.ica.options import SEARCH_ROWS, stages
from workers.spec import Ica, IcaSpec

_DOUBLE = 8
_PROCESS_BYTES = 410 * 2**20  # Python, torch, scikit-learn and SciPy before the first row
_MEMORY = 8  # steps that the extrapolation remembers, twice
_PLOT_BYTES = 3 * 100_000
_COLUMNS_OF_A_SAMPLE = 8  # of X or Z float64 numbers for each row that the start sees
_CHUNK_BYTES = 8 * 2**20
_DRAWN = 3  # times float64 that drawn data and what they are drawn from have at once


def resolve(spec: IcaSpec, info: DatasetInfo) -> IcaSpec:
    """The spec with the data digest filled in.

    Raises SpecMismatch, its pointer relative to the spec, where the spec does not fit the data.
    """
    if info.is_image or len(info.shape) != 1:
        raise SpecMismatch(
            "/dataset",
            f"ICA decomposes vectors, and {info.name} are pictures; upload N×X numbers (csv or "
            "npz), or draw laplace-ica",
        )
    _check_components(spec.trainer, info)
    _check_start(spec.trainer, info)
    if spec.trainer.method == "paper":
        _check_recipe(spec.trainer)
    rows = training_rows(spec, info)
    if rows < spec.resources.workers:
        raise SpecMismatch(
            "/resources/workers",
            f"the training split of {info.name} has {rows} data to share; ask for at most that",
        )
    return spec.model_copy(
        update={"dataset": spec.dataset.model_copy(update={"digest": info.digest})}
    )


def _check_components(trainer: Ica, info: DatasetInfo) -> None:
    if trainer.components is not None and trainer.components > info.dimensions:
        raise SpecMismatch(
            "/trainer/components",
            f"the data of {info.name} have {info.dimensions} dimensions; ask for at most that",
        )


def _check_start(trainer: Ica, info: DatasetInfo) -> None:
    if (trainer.start == "given") != (trainer.mixing is not None):
        raise SpecMismatch(
            "/trainer/mixing", 'goes with start "given", and that start with a mixing matrix'
        )
    if trainer.mixing is None:
        return
    if trainer.components is None:
        raise SpecMismatch("/trainer/components", "say how many columns the given A has")
    columns = {len(row) for row in trainer.mixing}
    if len(trainer.mixing) != info.dimensions or columns != {trainer.components}:
        raise SpecMismatch(
            "/trainer/mixing",
            f"must have {info.dimensions} rows, the dimensions of {info.name}, each of "
            f"{trainer.components} numbers, the components",
        )


def _check_recipe(trainer: Ica) -> None:
    if trainer.noise_variance is None:
        raise SpecMismatch("/trainer/noise_variance", "the published recipe must be given it")
    if trainer.prior.kind not in ("auto", "laplace"):
        raise SpecMismatch("/trainer/prior/kind", "the published recipe knows laplace alone")
    if trainer.components is None:
        raise SpecMismatch("/trainer/components", "the published recipe must be given them")


def training_rows(spec: IcaSpec, info: DatasetInfo) -> int:
    """N, the data that are not held out."""
    return info.count - held_out_count(info.count, spec.dataset.held_out_fraction)


def most_steps(spec: IcaSpec, rows: int) -> int:
    """Steps at which a fit of so many data ends at the latest; most end long before."""
    trainer = spec.trainer
    if trainer.method == "fastica":
        return 1
    legs = 1
    if trainer.method != "paper":
        legs = sum(leg.max_iterations + 1 for leg in stages(options_of(trainer, 0), rows))
        return legs + 1
    return iterations_of(trainer) + legs


def estimate(spec: IcaSpec, info: DatasetInfo) -> Estimate:
    """What the run will need; by arithmetic, nothing is allocated."""
    x, rows = info.dimensions, training_rows(spec, info)
    z = spec.trainer.components or min(x, MOST)
    parameters = x * z + x + 1
    sample = min(rows, SEARCH_ROWS) * (x + z) * _DOUBLE * _COLUMNS_OF_A_SAMPLE
    drawn = info.count * (x + z) * _DOUBLE * _DRAWN if spec.dataset.kind == "laplace-ica" else 0
    state_bytes = (2 * _MEMORY + 6) * x * z * _DOUBLE
    memory = _PROCESS_BYTES + max(2 * info.size_bytes, drawn) + sample + state_bytes + _CHUNK_BYTES
    kept = spec.keep_checkpoints + 3
    storage = kept * 3 * (parameters * _DOUBLE + 4096) + 2 * state_bytes + _PLOT_BYTES
    return Estimate(parameters, memory, most_steps(spec, rows), storage)
