"""Arrays as they are fetched; NumPy is imported when the first one comes."""

import io
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from api.client.errors import ClientError

if TYPE_CHECKING:
    import numpy as np

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"


@dataclass(frozen=True, slots=True)
class Reconstructions:
    """Data x, what the encoder saw, y, and reconstructions g, (n, *shape); latents z, (n, Z)."""

    x: Array
    y: Array
    z: Array
    g: Array


@dataclass(frozen=True, slots=True)
class Interpolations:
    """Latents z, (n, steps, Z), and what they decode to, g, (n, steps, *shape).

    Between data, x of shape (n, 2, *shape) are those at the ends of each path.
    """

    z: Array
    g: Array
    x: "Array | None"


def arrays_in(content: bytes) -> dict[str, Array]:
    """The arrays of an npz file by name; raises ClientError for other bytes."""
    import numpy as np

    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ClientError("it is no npz file of arrays of numbers") from error
