"""Held-out metrics: the naive spread ELBO in nats per datum, beside what it must be read with.

A spread ELBO depends on the noise, so it is always reported with the noise's entropy and as
excess, −ELBO − H(K); none of them ranks runs that differ in the noise. Evaluation draws from a
generator of its own, the same draws at every evaluation.
"""

import math
from collections.abc import Generator

import torch
from torch import Tensor

from workers.build import EVALUATION_ROWS, run_spread, spread_spec
from workers.decoding import decode, draw_latents
from workers.delta_vae import NAIVE, Objective, estimate_terms, objective_at
from workers.latents import units
from workers.metrics import EpochMeans, as_float, total_variance
from workers.networks import Autoencoder
from workers.seeds import SeedStream
from workers.spec import TrainSpec
from workers.spread import scale_at
from workers.spread.learned import Psi, information

VARIANCE_SAMPLES = 1024
INFORMATION_ROWS = 256
UNITS_ROWS = 10  # fewer say nothing of the variance that makes a unit active

# Work in pieces: yields after each one, so that the caller can speak up, and returns the result.
Work = Generator[None, None, dict[str, float]]


class Evaluation:
    """Evaluates models of one run on its held-out split; all rows are on one device.

    ``psi`` is what the run has learned of its spread at the time of an evaluation.
    """

    def __init__(
        self, spec: TrainSpec, train: Tensor, held_out: Tensor, psi: Psi | None = None
    ) -> None:
        self._spec = spec
        self._train = train
        self._held_out = held_out
        self._spread_spec = spread_spec(spec)
        self._psi = psi
        self._spread = run_spread(spec, psi, held_out.device)
        self._generator = torch.Generator(held_out.device)
        self._seeds = SeedStream(spec.seed, "evaluation")
        self._data_variance: float | None = None

    def run(self, model: Autoencoder, epoch: float) -> Work:
        """Metrics of the model at the noise's scale after ``epoch`` epochs.

        ``held_out_loss_nats`` is the trainer's own objective; the others are the naive spread
        ELBO's, whatever the estimator, so that runs at the same noise compare.
        """
        with model.evaluating():
            return (yield from self._measure(model, epoch))

    def _measure(self, model: Autoencoder, epoch: float) -> Work:
        values = yield from self._means(model, epoch, NAIVE)
        own = objective_at(self._spec.trainer, epoch)
        if own != NAIVE:
            values["loss_nats"] = (yield from self._means(model, epoch, own))["loss_nats"]
        scale = scale_at(self._spread_spec, epoch)
        entropy = self._spread.entropy(self._held_out.shape[1], scale)
        values["excess_nats"] = -values["elbo_nats"] - entropy
        values = {f"held_out_{name}": value for name, value in values.items()}
        values["noise_entropy_nats"] = entropy
        yield
        if self._psi is not None:
            values |= self._learned(self._psi, scale)
            yield
        if self._data_variance is None:
            self._data_variance = yield from total_variance(self._train)
        values["data_total_variance"] = self._data_variance
        yield
        y = self.seen(epoch)
        if len(y) >= UNITS_ROWS:
            active, informative = units(model, y)
            values |= {"active_units": active, "informative_units": informative}
        yield
        latents = draw_latents(VARIANCE_SAMPLES, model.latent_dim, self._spec.seed)
        samples = torch.from_numpy(decode(model, latents))
        values["sample_total_variance"] = yield from total_variance(samples)
        return values

    def seen(self, epoch: float) -> Tensor:
        """What the encoder sees of the first held-out data: spread, but in a plain VAE clean."""
        x = as_float(self._held_out[:INFORMATION_ROWS])
        own = objective_at(self._spec.trainer, epoch)
        self._generator.manual_seed(self._seeds.at(-2))
        with torch.no_grad():
            y = self._spread.transform(x)
            if own.estimator == "plain":
                return y
            scale = scale_at(self._spread_spec, epoch)
            return y + self._spread.sample_noise(tuple(x.shape), scale, self._generator)

    def _learned(self, psi: Psi, scale: float) -> dict[str, float]:
        """What the learned spread is like: its information of 256 training data, and its gain."""
        stride = max(1, len(self._train) // INFORMATION_ROWS)
        x = as_float(self._train[::stride][:INFORMATION_ROWS])
        self._generator.manual_seed(self._seeds.at(-1))
        with torch.no_grad():
            noise = self._spread.sample_noise(tuple(x.shape), scale, self._generator)
            found = information(self._spread, x, noise, scale).item() / len(x)
        values = {"information_nats": found, "information_limit_nats": math.log(len(x))}
        gain = psi.mean_gain()
        return values if gain is None else values | {"spread_gain": gain}

    def _means(self, model: Autoencoder, epoch: float, objective: Objective) -> Work:
        means = EpochMeans()
        scale = scale_at(self._spread_spec, epoch)
        # As many rows at once whatever the number of draws for each.
        draws = objective.noise_samples * objective.importance_samples
        for index, block in enumerate(
            torch.split(self._held_out, max(1, EVALUATION_ROWS // draws))
        ):
            self._generator.manual_seed(self._seeds.at(index))
            with torch.no_grad():
                terms = estimate_terms(
                    model, as_float(block), self._spread, scale, objective, self._generator
                )
            means.add(len(block), terms.loss.item(), terms.reconstruction.item(), terms.kl.item())
            yield
        return means.values()
