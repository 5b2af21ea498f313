"""What the workers of a run agree on after each backward pass, in one sum over all of them.

One buffer holds the gradients of all parameters and, in front of them, the wish to stop and the
step's terms. So a step costs one collective besides those of batch normalisation, every worker
learns of a stop at the same step, and none is left waiting for one that has stopped.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from workers.delta_vae import Terms
from workers.parallel import Peers

_IN_FRONT = 4  # the wish to stop, loss, reconstruction, KL


class SharedGradients:
    """The gradients of ``parameters``, which are views of one buffer from here on."""

    def __init__(self, parameters: Sequence[nn.Parameter], peers: Peers) -> None:
        self._peers = peers
        size = _IN_FRONT + sum(parameter.numel() for parameter in parameters)
        self._buffer = torch.zeros(size, device=parameters[0].device)
        at = _IN_FRONT
        for parameter in parameters:
            # In the parameter's own layout, as the optimiser wants it.
            parameter.grad = self._buffer.as_strided(parameter.shape, parameter.stride(), at)
            at += parameter.numel()

    def clear(self) -> None:
        """Before a backward pass, which adds to them."""
        self._buffer.zero_()

    def reduce(self, terms: Terms, wants_stop: bool) -> tuple[Terms, bool]:
        """Sum gradients and terms over the workers; also, whether any of them wants to stop.

        Raises PeerLost.
        """
        own = torch.stack((terms.loss, terms.reconstruction, terms.kl)).detach()
        self._buffer[0] = wants_stop
        self._buffer[1:_IN_FRONT] = own
        self._peers.all_reduce(self._buffer)
        front: Tensor = self._buffer[:_IN_FRONT].clone()
        return Terms(front[1], front[2], front[3]), bool(front[0] > 0)
