"""The scaled complementary error function erfcx(x) = e^(x²)·erfc(x) for x ≥ 0, fast.

torch has it, but takes 20 ns an element for it, most of an E-step. With u = (x − 2)/(x + 2) in
[−1, 1), (1 + 2x)·erfcx(x) is smooth in u over the whole half line, and its Chebyshev interpolant
needs degree 10 for float32 and 24 for float64 (relative error below 3e-7 and 1e-14).
"""

from functools import lru_cache

import torch
from torch import Tensor

_MIDDLE = 2.0
# Coefficients of powers of u, from numpy.polynomial.chebyshev.chebinterpolate.
_SINGLE = (
    1.2769783815525297,
    -0.09276303881018629,
    -0.1660306043326734,
    0.16403527327474235,
    -0.054215900878515993,
    -0.007940706906268812,
    0.008700217211913818,
    0.0010404808018765655,
    -0.0014083577477454017,
    -0.00018247801500592686,
    0.00016586757881627406,
)
_DOUBLE = (
    1.276978381552528,
    -0.09276382658574282,
    -0.16603039761511157,
    0.16405128003299507,
    -0.0542200010015152,
    -0.00803401506894144,
    0.008722654073227731,
    0.0012713387838584073,
    -0.001456816036292486,
    -0.00045433942632052863,
    0.00020637996274817962,
    0.00015103222023724484,
    -1.5579421730892988e-06,
    -3.639980086397072e-05,
    -1.3377034483279394e-05,
    3.654444559603514e-06,
    5.04508915742431e-06,
    1.6001422991224405e-06,
    -5.2439202652125e-07,
    -9.516236273721383e-07,
    -3.542860066329134e-07,
    2.357169363422332e-07,
    1.810316692312155e-07,
    -2.5287633322309966e-08,
    -2.985396711717024e-08,
)


@lru_cache(maxsize=8)
def _coefficients(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    table = _SINGLE if dtype == torch.float32 else _DOUBLE
    return torch.tensor(table[::-1], dtype=dtype, device=device).unbind()


def erfcx(x: Tensor) -> Tensor:
    """erfcx of every element of ``x``, which must be finite and not negative."""
    first, *rest = _coefficients(x.dtype, x.device)
    u = (x - _MIDDLE).div_(x + _MIDDLE)
    total = torch.addcmul(rest[0], first, u)
    for coefficient in rest[1:]:
        torch.addcmul(coefficient, total, u, out=total)
    return total.div_(x * 2 + 1)
