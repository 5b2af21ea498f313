"""ψ: all that is learned of a spread, apart from the networks."""

import torch
from torch import Tensor, nn

from workers.spread.learned.covariance import LowRank
from workers.spread.learned.transform import Transform


class Psi(nn.Module):
    """A covariance, a transform of the mean, or both; ``rival`` is (R, c) of the preset rival.

    Nothing of it requires gradients but in a step that learns it.
    """

    def __init__(
        self,
        covariance: LowRank | None,
        transform: Transform | None,
        rival: tuple[int, float] | None = None,
    ) -> None:
        super().__init__()
        self.covariance = covariance
        self.transform = transform
        self.rival = rival
        self.requires_grad_(requires_grad=False)

    def observe(self, rows: Tensor, seed: int, *, is_fresh: bool) -> None:
        """Take from the training rows what ψ needs; ``is_fresh`` where it begins at the seed."""
        if self.transform is not None:
            self.transform.observe(rows, seed)
        if self.covariance is not None and is_fresh:
            self.covariance.observe(rows, seed)

    def begin_step(self) -> None:
        """Before a step that learns ψ."""
        self.requires_grad_(requires_grad=True)
        if self.transform is not None:
            self.transform.begin_step()

    def project_gradient(self) -> None:
        """Between the gradient and the step."""
        if self.covariance is not None:
            self.covariance.project_gradient()

    def end_step(self) -> None:
        """After the step: back onto the constraints."""
        self.requires_grad_(requires_grad=False)
        if self.covariance is not None:
            self.covariance.retract()
        if self.transform is not None:
            self.transform.bound()

    @torch.no_grad()
    def mean_gain(self) -> float | None:
        """See Transform; None without one."""
        return None if self.transform is None else float(self.transform.mean_gain())
