"""Feature spaces in which samples and data are compared."""

from torch import Tensor

from workers.metrics import as_float
from workers.spread.learned.covariance import principal_components

_SEED = 0


class PixelPca:
    """The coordinates of rows along the leading principal components of the training data.

    A function of the training data alone, whatever the model. ``version`` rises when the same data
    would give other features.
    """

    version = 1

    def __init__(self, train: Tensor, components: int) -> None:
        self.size = min(components, train.shape[1])
        self.name = f"pixel-pca-{self.size}"
        self._components = principal_components(train, self.size, _SEED)

    def of(self, rows: Tensor) -> Tensor:
        """Features of N×D rows, float64 of shape (N, F)."""
        features: Tensor = as_float(rows) @ self._components
        return features.double()
