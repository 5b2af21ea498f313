r"""Noise that is stronger in R learned directions: k = Lη with L = I + (r − 1)QQᵀ.

QᵀQ = I, r = √(1 + c²/s²), and η is noise of standard deviation s in each of the D dimensions. Then

    Cov k = s²I + UUᵀ with U = cQ,     L⁻¹ = I − (1 − 1/r)QQᵀ,     log det L = R log r,

so log p(y|mean) = log p_η(L⁻¹d) − R log r with d = y − mean, which for Gaussian η is Woodbury's
form: dᵀ(s²I + UUᵀ)⁻¹d = (‖d‖² − c²/(s² + c²)‖Qᵀd‖²)/s². The entropy H(K) = H(η) + R log r does not
depend on Q, which is what makes it right to ascend the cross-entropy (section 3 of *Spread
Divergence*, Zhang et al., ICML 2020). Everything costs O(DR) a row.

Q = VW for W of shape (K, R), where V holds K principal components of the data, or Q = W. Only the
span of Q matters, so gradients are projected on what turns it, and W is made orthonormal again
after each step; it is so at every time.
"""

import math

import torch
from torch import Tensor, nn

PCA_ROWS = 4096
_ITERATIONS = 12
_OVERSAMPLED = 10


def stretch_of(strength: float, scale: float) -> float:
    """r = √(1 + c²/s²)."""
    return math.sqrt(1 + (strength / scale) ** 2)


def equal_entropy_scale(scale: float, strength: float, rank: int, dimensions: int) -> float:
    """σ of noise that is equal in all directions and has the entropy of the low-rank one.

    D log σ² = (D − R) log s² + R log(s² + c²).
    """
    return float(scale * stretch_of(strength, scale) ** (rank / dimensions))


class LowRank(nn.Module):
    """The directions Q, and L at any scale."""

    components: Tensor | None

    def __init__(
        self,
        dimensions: int,
        rank: int,
        strength: float,
        components: int | None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.strength = strength
        device = generator.device
        drawn = torch.randn(components or dimensions, rank, generator=generator, device=device)
        self.directions = nn.Parameter(_orthonormal(drawn))
        self.register_buffer(
            "components",
            None if components is None else torch.zeros(dimensions, components, device=device),
        )

    @property
    def rank(self) -> int:
        """R."""
        return self.directions.shape[1]

    def basis(self) -> Tensor:
        """Q, shape (D, R)."""
        if self.components is None:
            return self.directions
        basis: Tensor = self.components @ self.directions
        return basis

    def stretch(self, noise: Tensor, scale: float) -> Tensor:
        """Lη for η of shape (..., D)."""
        q = self.basis()
        more = stretch_of(self.strength, scale) - 1
        stretched: Tensor = noise + (noise @ q) @ q.T * more
        return stretched

    def shrink(self, d: Tensor, scale: float) -> Tensor:
        """L⁻¹d for d of shape (..., D)."""
        q = self.basis()
        less = 1 - 1 / stretch_of(self.strength, scale)
        shrunk: Tensor = d - (d @ q) @ q.T * less
        return shrunk

    def shrunk_squares(self, d: Tensor, scale: float) -> tuple[Tensor, Tensor, float]:
        """The parts of ‖L⁻¹d‖² = ‖d‖² − a‖Qᵀd‖²: d, Qᵀd and a = c²/(s² + c²)."""
        return d, d @ self.basis(), 1 - 1 / stretch_of(self.strength, scale) ** 2

    def log_det(self, scale: float) -> float:
        """log det L = R log r."""
        return self.rank * math.log(stretch_of(self.strength, scale))

    @torch.no_grad()
    def observe(self, rows: Tensor, seed: int) -> None:
        """Take V from the training data, N×D, where Q is to stay among their components."""
        if self.components is not None:
            found = principal_components(rows, self.components.shape[1], seed)
            self.components.copy_(found)

    @torch.no_grad()
    def project_gradient(self) -> None:
        """Keep of the gradient what turns the span of W: G − W(WᵀG)."""
        gradient, w = self.directions.grad, self.directions
        if gradient is not None:
            gradient.sub_(w @ (w.T @ gradient))

    @torch.no_grad()
    def retract(self) -> None:
        """Make W orthonormal again after a step."""
        self.directions.copy_(_orthonormal(self.directions))


def _orthonormal(w: Tensor) -> Tensor:
    """The Q of W = QR with a positive diagonal of R, in float64 on the way."""
    q, r = torch.linalg.qr(w.double())
    signs = torch.where(r.diagonal() < 0, -1.0, 1.0)
    positive: Tensor = (q * signs).to(w.dtype)
    return positive


def principal_components(rows: Tensor, count: int, seed: int) -> Tensor:
    """Orthonormal V of shape (D, count) along which N×D rows vary most, largest first.

    Subspace iteration on a function of the seed and of at most 4096 rows, evenly spaced. uint8
    counts as pixel/255.
    """
    stride = max(1, math.ceil(rows.shape[0] / PCA_ROWS))
    x = rows[::stride].float() / (255 if rows.dtype == torch.uint8 else 1)
    x = x - x.mean(0)
    width = min(count + _OVERSAMPLED, x.shape[1])
    generator = torch.Generator(rows.device).manual_seed(seed)
    v = torch.randn(x.shape[1], width, generator=generator, device=rows.device)
    for _ in range(_ITERATIONS):
        v = torch.linalg.qr(x.T @ (x @ v))[0]
    # The best directions within the subspace, by a small eigenvalue problem.
    projected = (x @ v).double()
    _, turn = torch.linalg.eigh(projected.T @ projected)
    return _orthonormal(v @ turn.flip(1)[:, :count].float())
