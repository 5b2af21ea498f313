"""Which latents carry anything of the data: the two signs of a model that has stopped to use them.

- An *active unit* is a dimension d along which the posterior's mean moves with what the encoder
  sees: A_d = Var_y(E[z_d|y]) > 0.01 (Burda, Grosse and Salakhutdinov, ICLR 2016, section 5.2).
- An *informative unit* is one whose posterior is not the prior: E_y KL(q(z_d|y) ‖ N(0, 1)) > 0.01
  nats, KL = ½(μ² + s² − 1) − log s. Where there is none, the posterior has collapsed (after the
  (ε, δ)-collapse of Lucas et al., NeurIPS 2019).

Units that are not active are dead: the decoder is given what does not depend on the data.
"""

import torch
from torch import Tensor

from workers.metrics import as_float
from workers.networks import Autoencoder

ACTIVE_VARIANCE = 0.01
INFORMATIVE_NATS = 0.01


def units(model: Autoencoder, y: Tensor) -> tuple[int, int]:
    """The numbers of (active, informative) units over y of shape (M, D)."""
    with torch.no_grad(), model.evaluating():
        posterior = model.encode(as_float(y))
    mean, std = posterior.mean, posterior.std
    kl_nats = (mean.square() + std.square() - 1) / 2 - posterior.log_std
    active = int((mean.var(0) > ACTIVE_VARIANCE).sum())
    return active, int((kl_nats.mean(0) > INFORMATIVE_NATS).sum())
