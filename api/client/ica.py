"""What an ``ica`` job has found, from the client's side."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from api import bodies
from api.client.connection import Connection

if TYPE_CHECKING:
    import numpy as np

MatrixForm = Literal["json", "npz", "csv"]
ArrayForm = Literal["json", "npz"]
NPZ = "application/x-npz"


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

    def sources(
        self, data: "Sequence[Sequence[float]] | np.ndarray[Any, Any]", checkpoint: str = "latest"
    ) -> bodies.SourcesBody:
        """E[z|x] and Var[z|x] of data (n, X)."""
        content = self.sources_bytes("json", _as_json(data), "application/json", checkpoint)
        return self._connection.parsed(bodies.SourcesBody, content)

    def sources_bytes(
        self, form: ArrayForm, content: bytes, media_type: str, checkpoint: str = "latest"
    ) -> bytes:
        """Sources as the bytes of a JSON or npz file, of data that are the content of one."""
        answer = self._connection.request(
            "POST",
            f"{self._path}/sources",
            params={"checkpoint": checkpoint, "format": form},
            content=content,
            headers={"Content-Type": media_type},
        )
        return answer.content

    def _bytes(self, what: str, form: MatrixForm, checkpoint: str) -> bytes:
        params = {"checkpoint": checkpoint, "format": form}
        return self._connection.request("GET", f"{self._path}/{what}", params=params).content


def _as_json(data: "Sequence[Sequence[float]] | np.ndarray[Any, Any]") -> bytes:
    rows = data if isinstance(data, Sequence) else data.tolist()
    return json.dumps({"data": rows}).encode()


def data_in(path: Path) -> tuple[bytes, str]:
    """Data in a file as what is posted, and its media type: npz and JSON as they are, csv read.

    Raises ValueError for a csv file that holds other things than numbers, and OSError.
    """
    match path.suffix:
        case ".npz":
            return path.read_bytes(), NPZ
        case ".json":
            return path.read_bytes(), "application/json"
        case _:
            lines = csv.reader(io.StringIO(path.read_text()))
            return _as_json([[float(value) for value in line] for line in lines if line]), (
                "application/json"
            )
