r"""The held-out log-likelihood of a decoder under a spread that is the same for every model.

Spread at a reference scale, a decoder g has a density, p̃(y) = ∫ p_K(y − g(z)) p(z) dz, whatever
noise it was trained with. It cannot be integrated, and an encoder fitted at another noise bounds it
badly: then the number measures the encoder. So the decoder is frozen, an encoder begins anew at
each scale and is fitted on a fixed budget, and log p̃(y) is bounded from below with K draws,

    E log (1/K) Σ_k p_K(y − g(z_k)) p(z_k)/q(z_k|y),    z_k ~ q(z|y)

(Burda et al., *Importance weighted autoencoders*, 2016). The numbers are functions of the decoder,
the data, the seed and the budget alone. Between scales they do not compare: choose a scale, or look
at the curve.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self, assert_never

import torch
from torch import Tensor

from workers.delta_vae import NAIVE, Terms, estimate_terms, importance_bound
from workers.errors import Diverged
from workers.metrics import as_float
from workers.networks import Autoencoder
from workers.optimize import Adam, clip_gradients
from workers.order import Order
from workers.seeds import SeedStream
from workers.spec import GaussianSpread, LaplaceSpread, ReferenceScales
from workers.spread import Spread, spread_of

VERSION = 1  # rises when the same decoder, data, seed and budget would give other numbers
SMALLER = 10  # the bound with a tenth of the draws shows how tight the bound is
_CLIP_NORM = 100.0
_ROWS, _DRAWS = 8, 64  # decoded at once


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Bounds of the mean log-likelihood at one scale, in nats per datum, over ``rows`` data.

    ``bound`` has all importance samples, ``smaller_bound`` a tenth of them, ``elbo`` one.
    """

    scale: float
    bound: float
    standard_error: float
    smaller_bound: float
    elbo: float
    rows: int

    def row(self) -> list[float]:
        """All but the number of data, for a train state."""
        return [self.scale, self.bound, self.standard_error, self.smaller_bound, self.elbo]

    @classmethod
    def of(cls, row: Sequence[float], rows: int) -> Self:
        """What :meth:`row` gave, over so many data."""
        scale, bound, standard_error, smaller_bound, elbo = row
        return cls(scale, bound, standard_error, smaller_bound, elbo, rows)


class Refit:
    """An encoder that is fitted to a frozen decoder at one reference scale.

    ``model`` is a fresh one, whose encoder begins as the seed says; it is given the decoder's
    tensors by name. Step ``step`` of the fit is a function of the seed and its number.
    """

    def __init__(
        self,
        model: Autoencoder,
        decoder: Mapping[str, Tensor],
        spec: ReferenceScales,
        scale: float,
        seed: int,
        train: Tensor,
    ) -> None:
        self.model, self.step = model, 0
        self._spec, self._scale, self._train = spec, scale, train
        self._spread = reference_spread(spec, train.device)
        model.decoder.load_state_dict(decoder)
        model.decoder.requires_grad_(requires_grad=False)
        self.parameters = list(model.encoder.parameters())
        self.optimizer = Adam(self.parameters, spec.learning_rate)
        batch = min(spec.batch_size, len(train))
        order = SeedStream(seed, f"reference order {scale!r}")
        self._order = Order(order, len(train), batch, train.device)
        self._seeds = SeedStream(seed, f"reference noise {scale!r}")
        self._generator = torch.Generator(train.device)

    def advance(self) -> Terms:
        """One step of the encoder; returns the batch's terms. Raises Diverged."""
        self.model.train()
        self.model.decoder.eval()  # its running statistics are the checkpoint's
        x = as_float(self._train.index_select(0, self._order.batch(self.step)))
        self._generator.manual_seed(self._seeds.at(self.step))
        terms = estimate_terms(self.model, x, self._spread, self._scale, NAIVE, self._generator)
        self.optimizer.zero_grad()
        terms.loss.backward()
        clip_gradients(self.parameters, _CLIP_NORM)
        self.optimizer.step()
        self.step += 1
        if self.step % 100 == 0 and not math.isfinite(terms.loss.item()):
            raise Diverged(
                self.step,
                f"The encoder diverged at the reference scale {self._scale:g}; choose a "
                f"learning_rate below {self._spec.learning_rate:g}.",
            )
        return terms.detach()


def reference_noise(spec: ReferenceScales, scale: float = 1.0) -> GaussianSpread | LaplaceSpread:
    """The spec of the noise that all models are spread with."""
    match spec.noise:
        case "gaussian":
            return GaussianSpread(kind="gaussian", scale=scale)
        case "laplace":
            return LaplaceSpread(kind="laplace", scale=scale)
        case _:
            assert_never(spec.noise)


def reference_spread(spec: ReferenceScales, device: torch.device) -> Spread:
    """The noise that all models are spread with."""
    return spread_of(reference_noise(spec), device)


def spread_rows(rows: Tensor, spread: Spread, scale: float, seed: int) -> Tensor:
    """y = x + k of N×D rows, the same for every model."""
    x = as_float(rows)
    generator = torch.Generator(x.device).manual_seed(SeedStream(seed, "reference data").at(0))
    return x + spread.sample_noise(tuple(x.shape), scale, generator)


def likelihood(
    model: Autoencoder, spec: ReferenceScales, scale: float, seed: int, held_out: Tensor
) -> Generator[None, None, Likelihood]:
    """Bounds of the held-out log-likelihood at a scale; yields between pieces of the work."""
    rows, spread = held_out[: spec.rows], reference_spread(spec, held_out.device)
    y = spread_rows(rows, spread, scale, seed)
    seeds, generator = SeedStream(seed, "reference draws"), torch.Generator(y.device)
    found = []
    for index, block in enumerate(y.split(_ROWS)):
        generator.manual_seed(seeds.at(index))
        with torch.no_grad(), model.evaluating():
            found.append(_bounds(model, block, spread, scale, spec.importance_samples, generator))
        yield
    bound, smaller, elbo = torch.cat(found, 1)
    if not bool(bound.isfinite().all()):
        raise Diverged(spec.steps, f"The log-likelihood at scale {scale:g} is not finite.")
    return Likelihood(
        scale=scale,
        bound=float(bound.mean()),
        standard_error=float(bound.std() / math.sqrt(len(bound))),
        smaller_bound=float(smaller.mean()),
        elbo=float(elbo.mean()),
        rows=len(bound),
    )


def _bounds(
    model: Autoencoder,
    y: Tensor,
    spread: Spread,
    scale: float,
    draws: int,
    generator: torch.Generator,
) -> Tensor:
    """The bounds with all draws, a tenth of them and one, for each row of y: 3×M, float64."""
    q = model.encode(y)
    noise = torch.empty((draws, *q.mean.shape), device=y.device).normal_(generator=generator)
    log_p = torch.cat(
        [
            spread.log_prob(y, model.decode(q.sample(part)), scale).double()
            for part in noise.split(_DRAWS)
        ]
    )
    return torch.stack(
        [importance_bound(log_p, q, noise, k).mean(0) for k in (draws, draws // SMALLER, 1)]
    )
