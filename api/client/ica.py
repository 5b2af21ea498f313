"""What an ``ica`` job has found, from the client's side."""

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from api import bodies
from api.client.arrays import arrays_in
from api.client.connection import Connection

if TYPE_CHECKING:
    import numpy as np

MatrixForm = Literal["json", "npz", "csv"]
ArrayForm = Literal["json", "npz"]
Rows: TypeAlias = "Sequence[Sequence[float]] | np.ndarray[Any, Any]"
NPZ = "application/x-npz"
# 8 bytes each: a part fits into the largest body that a service takes by default.
PART_VALUES = 100_000


class IcaResults:
    """The mixing matrix of a job, and the sources behind data; ``path`` is the job's."""

    def __init__(self, connection: Connection, path: str) -> None:
        self._connection = connection
        self._path = path

    def mixing(self, checkpoint: str = "latest") -> bodies.MixingBody:
        """A, FastICA's answer beside it, noise, priors, evidence, errors where they are known."""
        params = {"checkpoint": checkpoint, "format": "json"}
        return self._connection.get(bodies.MixingBody, f"{self._path}/mixing", params)

    def mixing_bytes(self, form: MatrixForm, checkpoint: str = "latest") -> bytes:
        """The same as the bytes of a JSON, npz or csv file."""
        return self._bytes("mixing", form, checkpoint)

    def unmixing(self, checkpoint: str = "latest") -> bodies.UnmixingBody:
        """W = (AᵀA)⁻¹Aᵀ."""
        params = {"checkpoint": checkpoint, "format": "json"}
        return self._connection.get(bodies.UnmixingBody, f"{self._path}/unmixing", params)

    def unmixing_bytes(self, form: MatrixForm, checkpoint: str = "latest") -> bytes:
        """The same as the bytes of a JSON, npz or csv file."""
        return self._bytes("unmixing", form, checkpoint)

    def sources(self, data: "Rows", checkpoint: str = "latest") -> bodies.SourcesBody:
        """E[z|x] and Var[z|x] of data (n, X), which are sent in parts where they are many.

        Raises ValueError for what is no matrix of numbers.
        """
        rows = _matrix(data)
        step = max(PART_VALUES // max(rows.shape[1], 1), 1)
        parts: list[bodies.SourcesBody] = []
        for begin in range(0, max(len(rows), 1), step):
            answer = self._connection.request(
                "POST",
                f"{self._path}/sources",
                params={"checkpoint": checkpoint, "format": "json"},
                content=_npz(data=rows[begin : begin + step]),
                headers={"Content-Type": NPZ},
            )
            parts.append(self._connection.parsed(bodies.SourcesBody, answer.content))
            checkpoint = parts[0].checkpoint  # also of the other parts, whatever is the latest then
        return _joined(parts)

    def sources_bytes(self, form: ArrayForm, data: "Rows", checkpoint: str = "latest") -> bytes:
        """Sources as the bytes of a JSON file, or of an npz file of ``mean`` and ``variance``."""
        found = self.sources(data, checkpoint)
        if form == "json":
            return found.model_dump_json().encode()
        return _npz(mean=found.mean, variance=found.variance)

    def _bytes(self, what: str, form: MatrixForm, checkpoint: str) -> bytes:
        params = {"checkpoint": checkpoint, "format": form}
        return self._connection.request("GET", f"{self._path}/{what}", params=params).content


def _joined(parts: Sequence[bodies.SourcesBody]) -> bodies.SourcesBody:
    n = sum(part.n for part in parts)
    square = sum(part.n * part.rmse**2 for part in parts) / n
    changes = {
        "n": n,
        "mean": [row for part in parts for row in part.mean],
        "variance": [row for part in parts for row in part.variance],
        "rmse": math.sqrt(square),
    }
    return parts[0] if len(parts) == 1 else parts[0].model_copy(update=changes)


def _npz(**arrays: Any) -> bytes:
    import numpy as np

    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _matrix(data: "Rows") -> "np.ndarray[Any, Any]":
    import numpy as np

    try:
        rows = np.asarray(data, np.float64)
    except TypeError as error:
        raise ValueError(f"data are rows of numbers ({error})") from error
    if rows.ndim != 2:
        raise ValueError(f"data are rows of numbers, N×X, not of the shape {rows.shape}")
    return np.ascontiguousarray(rows)


def data_in(path: Path) -> "np.ndarray[Any, Any]":
    """Data N×X in a file: the array ``data``, or the only one, of an npz file, ``data`` of a JSON
    file, or the lines of a csv file.

    Raises ValueError for a file that holds other things than numbers, ClientError for one that is
    no npz file, and OSError.
    """
    match path.suffix:
        case ".npz":
            arrays = arrays_in(path.read_bytes())
            if "data" not in arrays and len(arrays) != 1:
                raise ValueError("it holds several arrays; name that of the data data")
            return _matrix(arrays.get("data", next(iter(arrays.values()))))
        case ".json":
            body = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(body, dict) or body.keys() != {"data"}:
                raise ValueError('it must hold {"data": [[…], …]}')
            return _matrix(body["data"])
        case _:
            lines = csv.reader(io.StringIO(path.read_text(encoding="utf-8")))
            return _matrix([[float(value) for value in line] for line in lines if line])
