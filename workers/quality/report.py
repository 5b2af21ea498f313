"""All measures of one model against held-out data, each with what it must be read with."""

import hashlib
from collections.abc import Callable, Generator
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from workers.attended import Wish, attended
from workers.decoding import decode, draw_latents
from workers.latents import units
from workers.networks import Autoencoder
from workers.quality.features import Features, PixelPca, networks
from workers.quality.frechet import frechet_distance
from workers.quality.kernels import kid, mmd
from workers.quality.neighbours import memorisation, nearest_distances, support
from workers.quality.reference import SMALLER, VERSION, Likelihood, Refit, likelihood
from workers.quality.sliced import sliced_wasserstein
from workers.quality.weights import Shelf
from workers.spec import Quality, ReferenceScales

SUPPORT_ROWS = 2000
NEIGHBOUR_ROWS = 500


class Measure(BaseModel):
    """One number; ``space`` and ``version`` say in which features, ``biased`` how the numbers of
    rows move it, null where they do not."""

    model_config = ConfigDict(frozen=True)

    value: float
    samples: int
    reference: int
    space: str
    version: int
    standard_error: float | None = None
    biased: str | None = None


class Report(BaseModel):
    """All measures, and the digest of the rows that they were measured against."""

    model_config = ConfigDict(frozen=True)

    reference: str
    measures: dict[str, Measure]

    def metrics(self) -> dict[str, float]:
        """The values by name, standard errors beside them."""
        values = {}
        for name, measure in self.measures.items():
            values[name] = measure.value
            if measure.standard_error is not None:
                values[f"{name}_standard_error"] = measure.standard_error
        return values


class Assessment:
    """Measures models of one run; the features and the reference are made once.

    ``shape`` is one datum's, ``fresh`` makes an untrained model of the run's network. Raises
    ExtractorUnavailable at once, not at the end of a training.
    """

    def __init__(
        self,
        spec: Quality,
        seed: int,
        shape: tuple[int, ...],
        train: Tensor,
        held_out: Tensor,
        shelf: Shelf,
        fresh: Callable[[], Autoencoder],
    ) -> None:
        self._spec = spec
        self._seed = seed
        self._train = train
        self._fresh = fresh
        self._held_out = held_out
        self._reference = held_out[: spec.samples]
        self._networks = networks(spec, shape, shelf, train.device)
        self._pixels: PixelPca | None = None
        self._reference_features: dict[str, Tensor] = {}
        self._held_out_nearest: Tensor | None = None

    def run(self, model: Autoencoder, y: Tensor) -> Generator[None, None, Report]:
        """Yields between pieces of the work; ``y`` is what the encoder sees of held-out data."""
        if self._pixels is None:
            self._pixels = PixelPca(self._train, self._spec.components)
            yield
        reference = self._reference
        device = reference.device
        latents = draw_latents(self._spec.samples, model.latent_dim, self._seed)
        blocks = []
        for block in range(0, len(latents), NEIGHBOUR_ROWS):
            rows = latents[block : block + NEIGHBOUR_ROWS]
            with model.evaluating():
                blocks.append(torch.from_numpy(decode(model, rows)))
            yield
        samples = torch.cat(blocks).to(device)
        measures: dict[str, Measure] = {}
        spaces: list[Features] = [self._pixels, *self._networks]
        for features in spaces:
            if features.name not in self._reference_features:
                of_reference = yield from _features(features, reference)
                self._reference_features[features.name] = of_reference
            a = yield from _features(features, samples)
            yield from _distances(measures, a, self._reference_features[features.name], features)
        pixels: dict[str, Any] = {"space": "pixels", "version": 1}
        few = samples[:NEIGHBOUR_ROWS]
        if self._held_out_nearest is None:
            self._held_out_nearest = yield from self._nearest(reference[:NEIGHBOUR_ROWS])
        nearest = yield from self._nearest(few)
        measures["memorisation"] = Measure(
            value=memorisation(nearest, self._held_out_nearest),
            samples=len(nearest),
            reference=len(self._held_out_nearest),
            **pixels,
        )
        measures["active_units"] = Measure(
            value=units(model, y)[0], samples=len(y), reference=0, space="latents", version=1
        )
        if (scales := self._spec.reference_scales) is not None:
            for scale in dict.fromkeys(scales.scales):
                measures |= yield from self._likelihood(model, scales, scale)
        return Report(reference=_digest(reference), measures=measures)

    def _likelihood(
        self, model: Autoencoder, spec: ReferenceScales, scale: float
    ) -> Generator[None, None, dict[str, Measure]]:
        """The likelihood at one reference scale, with an encoder that is fitted to it."""
        decoder = model.decoder.state_dict()
        refit = Refit(self._fresh(), decoder, spec, scale, self._seed, self._train)
        for _ in range(spec.steps):
            refit.advance()
            yield
        found = yield from likelihood(refit.model, spec, scale, self._seed, self._held_out)
        return likelihood_measures(found, spec)

    def _nearest(self, rows: Tensor) -> Generator[None, None, Tensor]:
        nearest = rows.new_zeros(0)
        for best_so_far in nearest_distances(rows, self._train):
            nearest = best_so_far
            yield
        return nearest


def _features(features: Features, rows: Tensor) -> Generator[None, None, Tensor]:
    blocks = []
    for block in features.blocks(rows):
        blocks.append(block)
        yield
    return torch.cat(blocks)


def _distances(
    measures: dict[str, Measure], a: Tensor, b: Tensor, features: Features
) -> Generator[None, None, None]:
    """All measures between features of samples, a, and of the reference, b."""
    named: dict[str, Any] = {"space": features.name, "version": features.version}
    of = features.suffix
    whole = {"samples": len(a), "reference": len(b), **named}
    fewest = min(len(a), len(b))
    biased = (
        f"too large from {fewest} rows in {a.shape[1]} features, and above 0 for equal "
        "distributions; compare equal numbers"
    )
    frechet = yield from _aside(lambda: frechet_distance(a, b))
    measures[f"frechet_{of}"] = Measure(value=frechet, biased=biased, **whole)
    for name, estimate_of in (("kid", kid), ("mmd", mmd)):
        estimate = estimate_of(a, b)
        measures[f"{name}_{of}"] = Measure(
            value=estimate.value,
            standard_error=estimate.standard_error,
            samples=estimate.rows,
            reference=estimate.rows,
            **named,
        )
        yield
    paired = {"samples": fewest, "reference": fewest, **named}
    measures[f"sliced_wasserstein_{of}"] = Measure(
        value=sliced_wasserstein(a, b), biased=biased, **paired
    )
    yield
    rows = min(fewest, SUPPORT_ROWS)
    found = support(a[:rows], b[:rows])
    for name in ("precision", "recall", "density", "coverage"):
        measures[f"{name}_{of}"] = Measure(
            value=getattr(found, name),
            samples=rows,
            reference=rows,
            biased=f"depends on its {rows} rows; compare equal numbers only",
            **named,
        )
    yield


def _aside(compute: Callable[[], float]) -> Generator[None, None, float]:
    """The result of what takes seconds in thousands of features, computed in a thread beside."""
    value = 0.0
    for found in attended(lambda: iter([compute()]), Wish(), lambda: False):
        if found is not None:
            value = found
        yield
    return value


def likelihood_names(spec: ReferenceScales, scale: float) -> tuple[str, str, str]:
    """The names of the bounds at one scale: by all draws, by a tenth of them, by one."""
    at = f"{spec.noise}_{scale:g}"
    fewer = spec.importance_samples // SMALLER
    return f"log_likelihood_{at}", f"log_likelihood_{at}_k{fewer}", f"elbo_{at}"


def likelihood_measures(found: Likelihood, spec: ReferenceScales) -> dict[str, Measure]:
    """The bounds of a likelihood by name, with the number of draws that each is made of."""
    most = spec.importance_samples
    values = (
        (found.bound, most, found.standard_error),
        (found.smaller_bound, most // SMALLER, None),
        (found.elbo, 1, None),
    )
    bounds = dict(zip(likelihood_names(spec, found.scale), values, strict=True))
    return {
        name: Measure(
            value=value,
            samples=draws,
            reference=found.rows,
            space=f"spread-{spec.noise}-{found.scale:g}",
            version=VERSION,
            standard_error=error,
            biased=f"a lower bound: K = {draws}, {spec.steps} steps of a new encoder",
        )
        for name, (value, draws, error) in bounds.items()
    }


def _digest(rows: Tensor) -> str:
    return f"sha256:{hashlib.sha256(rows.cpu().contiguous().numpy().tobytes()).hexdigest()}"
