r"""Steps that learn the spread: ascent of the spread divergence in ψ, while the networks stay.

KL(p̃‖q̃) = CE − H(K) − I(X; Y), where the entropy of the noise is held fixed and I is the information
that y has of x. The cross-entropy CE = −E log q̃(y) is bounded by −ELBO, which is what is ascended;
with ``ascend: kl``, −ELBO − I. The gradient goes through y = f(x) + Lη too (section 3 of *Spread
Divergence*, Zhang et al., ICML 2020).
"""

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from workers.delta_vae import Objective, Terms, estimate_terms
from workers.gradients import SharedGradients
from workers.metrics import as_float
from workers.parallel import Peers, Share
from workers.spec import DeltaVae, LearnedSpread
from workers.spread import Spread
from workers.spread.learned import Psi, information
from workers.train_state import TrainState


class NoiseLearner:
    """Takes the steps of ψ; ``rows`` are the training split."""

    def __init__(
        self,
        trainer: DeltaVae,
        state: TrainState,
        rows: Tensor,
        spread: Spread,
        peers: Peers,
        precision: AbstractContextManager[object],
    ) -> None:
        assert trainer.learned_spread is not None
        assert state.psi is not None
        self._learned: LearnedSpread = trainer.learned_spread
        self._objective = Objective("naive", trainer.noise_samples, trainer.importance_samples)
        self._state = state
        self._psi: Psi = state.psi
        self._rows = rows
        self._spread = spread
        self._peers = peers
        self._precision = precision
        parameters = list(self._psi.parameters())
        has_peers = peers.size > 1 and bool(parameters)
        self._shared = SharedGradients(parameters, peers) if has_peers else None

    def advance(
        self, batch: Tensor, scale: float, generator: torch.Generator, wants_stop: bool
    ) -> tuple[Terms, bool]:
        """One step on the rows of a batch; its terms, and whether a worker wants to stop.

        Raises PeerLost.
        """
        model, optimizer = self._state.model, self._state.psi_optimizer
        assert optimizer is not None
        model.requires_grad_(requires_grad=False)
        self._psi.begin_step()
        try:
            with model.evaluating():
                terms, is_stop_agreed = self._backward(batch, scale, generator, wants_stop)
            self._psi.project_gradient()
            optimizer.step()
        finally:
            self._psi.end_step()
            model.requires_grad_(requires_grad=True)
        return terms, is_stop_agreed

    def _backward(
        self, batch: Tensor, scale: float, generator: torch.Generator, wants_stop: bool
    ) -> tuple[Terms, bool]:
        optimizer = self._state.psi_optimizer
        assert optimizer is not None
        terms = self._terms(batch, scale, generator)
        if self._shared is None:
            optimizer.zero_grad()
            terms.loss.backward()
            return terms.detach(), False
        self._shared.clear()
        terms.loss.backward()
        return self._shared.reduce(terms, wants_stop)

    def _terms(self, batch: Tensor, scale: float, generator: torch.Generator) -> Terms:
        """The loss is minus what is ascended; this worker's part of the batch's mean."""
        share = self._peers.share(len(batch))
        x = as_float(self._rows.index_select(0, share.of(batch)))
        with self._precision:
            terms = estimate_terms(
                self._state.model, x, self._spread, scale, self._objective, generator, share
            )
        loss = -terms.loss
        if self._learned.ascend == "kl":
            loss = loss + self._information(batch, share, scale, generator)
        return Terms(loss, terms.reconstruction, terms.kl)

    def _information(
        self, batch: Tensor, share: Share, scale: float, generator: torch.Generator
    ) -> Tensor:
        x = as_float(self._rows.index_select(0, batch))
        noise = self._spread.sample_noise(tuple(x.shape), scale, generator)
        part = slice(share.begin, share.end)
        return information(self._spread, x, noise[part], scale, part) / share.total
