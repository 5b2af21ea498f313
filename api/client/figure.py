"""What a ``paper`` job leaves, from the client's side."""

import csv
import io
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from api.client.connection import Connection

PICTURE, TABLE, NUMBERS = FILES = ("figure.png", "figure.csv", "figure.json")


class _Read(BaseModel):
    # Later versions may tell more.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Verdict(_Read):
    """What was found of one claim of the paper; ``holds`` null is not decided at this scale."""

    holds: bool | None
    text: str

    def __str__(self) -> str:
        """As a line."""
        word = {True: "holds", False: "does not hold", None: "not decided"}[self.holds]
        return f"{word}: {self.text}"


class FigureNumbers(_Read):
    """The content of figure.json: what was asked, the verdicts, and the figure's own numbers."""

    figure: str
    title: str
    source: str
    asked: dict[str, Any]
    verdicts: list[Verdict]
    summary: dict[str, Any]


class FigureResults:
    """The files of a job of the trainer ``paper``; ``path`` is the job's."""

    def __init__(self, connection: Connection, path: str) -> None:
        self._connection = connection
        self._path = f"{path}/artifacts"

    def numbers(self) -> FigureNumbers:
        """Verdicts and numbers."""
        return self._connection.parsed(FigureNumbers, self._bytes(NUMBERS))

    def numbers_in(self, folder: str | Path) -> FigureNumbers:
        """The same from a folder that :meth:`download` has written."""
        return self._connection.parsed(FigureNumbers, (Path(folder) / NUMBERS).read_bytes())

    def rows(self) -> list[dict[str, str]]:
        """The table behind the picture, as text; a cell that a row has not is empty."""
        return list(csv.DictReader(io.StringIO(self._bytes(TABLE).decode())))

    def png(self) -> bytes:
        """The picture."""
        return self._bytes(PICTURE)

    def download(self, folder: str | Path) -> list[Path]:
        """Write the three files into a folder, which is made where it is not there."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        files = [target / name for name in FILES]
        for file in files:
            self._connection.download(f"{self._path}/{file.name}", file, redirect=False)
        return files

    def _bytes(self, name: str) -> bytes:
        return self._connection.request("GET", f"{self._path}/{name}").content
