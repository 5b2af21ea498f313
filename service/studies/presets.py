"""Standing questions as studies: the body of a request, to be read, changed and submitted.

``spread-scale`` asks how much of which noise a δ-VAE should be trained with, ``ica-sigma`` which
noise an ICA fit should assume. Each follows the protocol of service.studies: an objective that
does not depend on the noise, and, where trials are stopped early, no comparison before a third of
the epochs, as early ranks of noises reverse.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod
from typing import Any, Literal, TypeAlias, get_args

from service.datasets import Datasets
from service.errors import FieldError, InvalidQuery
from service.studies.measuring import ROWS
from workers.data import DatasetInfo
from workers.errors import DataError
from workers.spec import FeatureName, IcaDataset, NamedDataset, ToyDataset

PresetName = Literal["spread-scale", "ica-sigma"]
Features: TypeAlias = FeatureName
KIND, SCALE, LEARNED = "/trainer/spread/kind", "/trainer/spread/scale", "/trainer/learned_spread"
NOISE = "/trainer/noise_variance"
# Trials are judged as they come, so the first ones go on whatever they are: of 16 noises a factor
# of 10 lets 3 to 7 go on beyond the rung, see docs/noise.md.
REDUCTION_FACTOR = 10
_HELD_OUT = (0.1, 0.5)
_TOYS: tuple[str, ...] = get_args(ToyDataset.model_fields["kind"].annotation)
_ICA_TOY = "laplace-ica"
_DIRECTIONS, _COMPONENTS = 20, 64


@dataclass(frozen=True, slots=True)
class Preset:
    """A study that answers a question.

    ``plots`` are the parameters of the curves that show the answer, ``notes`` what to know.
    """

    name: PresetName
    title: str
    request: Mapping[str, Any]
    plots: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


TITLES: Mapping[PresetName, tuple[str, str]] = {
    "spread-scale": (
        "How much of which noise?",
        "A δ-VAE with Gaussian and Laplace noise of any scale, learned or not, ranked by KID.",
    ),
    "ica-sigma": (
        "Which noise in ICA?",
        "Linear ICA at noises of any size, ranked by the error of A where A is known, and else by "
        "the evidence of clean held-out data.",
    ),
}


@dataclass(frozen=True, slots=True)
class SpreadScale:
    """Options of ``spread-scale``; ``features`` is a network in whose features KID is taken, None
    principal components, and ``check`` one that is measured beside it and ranks nothing."""

    dataset: str
    epochs: int = 60
    trials: int = 27
    concurrency: int = 1
    learned: bool = True
    hidden: tuple[int, ...] = (400, 400)
    latent_dim: int = 64
    features: Features | None = None
    check: Features | None = None


@dataclass(frozen=True, slots=True)
class IcaSigma:
    """Options of ``ica-sigma``; ``low`` and ``high`` are deviations of the noise."""

    dataset: str
    components: int | None = None
    low: float = 0.02
    high: float = 2.0
    trials: int = 20
    concurrency: int = 1


class Presets:
    """Makes requests for the data sets that there are."""

    def __init__(self, datasets: Datasets) -> None:
        self._datasets = datasets

    def spread_scale(self, options: SpreadScale) -> Preset:
        """The question of the spread; raises InvalidQuery for data that cannot be used."""
        if options.dataset == _ICA_TOY:
            raise _unusable("is drawn for ica; choose another one")
        dataset, info = self._data(options.dataset)
        fraction, held_out = _held_out(info)
        third = ceil(options.epochs / 3)
        quality: dict[str, Any] = {"at": "checkpoints", "samples": ROWS}
        metric = "kid_pca"
        if options.features is not None:
            metric = f"kid_{options.features}"
        if networks := [one for one in (options.features, options.check) if one is not None]:
            quality["features"] = list(dict.fromkeys(networks))
        space: dict[str, Any] = {
            KIND: {"choice": ["gaussian", "laplace"]},
            SCALE: {"loguniform": [0.05, 1.0]},
        }
        if options.learned:
            space[LEARNED] = {"choice": [None, _learned(info, options.epochs)]}
        request = {
            "name": f"spread-scale on {options.dataset}",
            "spec": {
                "dataset": {**dataset, "held_out_fraction": fraction},
                "trainer": {
                    "kind": "delta_vae",
                    "epochs": options.epochs,
                    "network": {
                        "kind": "mlp",
                        "hidden": list(options.hidden),
                        "latent_dim": options.latent_dim,
                    },
                    "quality": quality,
                },
                # Quality is measured with checkpoints, and so at each rung.
                "checkpoint_every_epochs": third,
            },
            "space": space,
            "objective": {"metric": metric, "mode": "min"},
            "search": {"kind": "tpe"},
            "scheduler": {
                "kind": "asha",
                "grace_epochs": third,
                "reduction_factor": REDUCTION_FACTOR,
            },
            "budget": {"trials": options.trials},
            "concurrency": options.concurrency,
            "seeds": [0],
        }
        notes = [
            f"No trial is stopped before epoch {third}, a third of all: early ranks of noises "
            "reverse."
        ]
        if held_out < ROWS:
            notes.append(
                f"KID rests on {held_out} held-out data, where {ROWS} would be better: it varies "
                "more, and more configurations cannot be told apart."
            )
        plots = ((SCALE, KIND), (SCALE, LEARNED)) if options.learned else ((SCALE, KIND),)
        return _preset("spread-scale", request, plots, notes)

    def ica_sigma(self, options: IcaSigma) -> Preset:
        """The question of ICA's noise; raises InvalidQuery for data that cannot be used."""
        if options.low >= options.high:
            raise InvalidQuery(
                "/query/low must be below high.", (FieldError("/query/low", "must be below high"),)
            )
        dataset, info = self._data(options.dataset)
        if info.is_image or len(info.shape) != 1:
            raise _unusable("has pictures; ica decomposes vectors")
        is_known = options.dataset == _ICA_TOY
        components = options.components
        if components is None and is_known:
            components = int(IcaDataset.model_fields["components"].default)
        trainer = {"kind": "ica"} | ({} if components is None else {"components": components})
        metric, mode = (
            ("error_relative", "min") if is_known else ("held_out_log_evidence_nats", "max")
        )
        request = {
            "name": f"ica-sigma on {options.dataset}",
            "spec": {"dataset": dataset, "trainer": trainer},
            "space": {NOISE: {"loguniform": [options.low**2, options.high**2]}},
            "objective": {"metric": metric, "mode": mode},
            "search": {"kind": "tpe"},
            "budget": {"trials": options.trials},
            "concurrency": options.concurrency,
            "seeds": [0],
        }
        notes = [
            "What is searched is the variance of the noise that the model assumes.",
            "The true A is known, so that its error ranks."
            if is_known
            else "The evidence is that of clean held-out data, at one fixed scale of the spread, "
            "0: it compares between noises, as a likelihood of the same data does.",
            "Seeds change where a fit begins and not the data, so that intervals are narrow.",
        ]
        return _preset("ica-sigma", request, ((NOISE,),), notes)

    def _data(self, name: str) -> tuple[dict[str, Any], DatasetInfo]:
        """A data set as a spec refers to it, and what is known of it."""
        try:
            if name == _ICA_TOY:
                return {"kind": name}, self._datasets.describe(IcaDataset(kind="laplace-ica"))
            if name in _TOYS:
                toy = ToyDataset.model_validate({"kind": name})
                return {"kind": name}, self._datasets.describe(toy)
            return {"name": name}, self._datasets.describe(NamedDataset(name=name))
        except (DataError, ValueError) as error:
            told = str(error) if isinstance(error, DataError) else "is no name of a data set"
            raise _unusable(told) from error


def _unusable(problem: str) -> InvalidQuery:
    return InvalidQuery(f"/query/dataset {problem}.", (FieldError("/query/dataset", problem),))


def _held_out(info: DatasetInfo) -> tuple[float, int]:
    """The share that is held out so that there are enough data to compare with, and how many."""
    least, most = _HELD_OUT
    fraction = min(max(least, ceil(1000 * ROWS / info.count) / 1000), most)
    return fraction, int(info.count * fraction)


def _learned(info: DatasetInfo, epochs: int) -> dict[str, Any]:
    """A learned covariance of low rank: among leading components where pixels may never change."""
    dimensions = prod(info.shape)
    covariance: dict[str, Any] = {
        "kind": "low_rank",
        "rank": max(1, min(_DIRECTIONS, dimensions // 4)),
    }
    if dimensions > _COMPONENTS:
        covariance["components"] = _COMPONENTS
    return {
        "covariance": covariance,
        "every_epochs": max(1, epochs // 6),
        "noise_steps": 200,
        "encoder_steps": 100,
    }


def _preset(
    name: PresetName,
    request: Mapping[str, Any],
    plots: tuple[tuple[str, ...], ...],
    notes: list[str],
) -> Preset:
    return Preset(name, TITLES[name][0], request, plots, tuple(notes))
