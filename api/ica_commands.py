"""The commands about ``ica`` jobs: mixing matrices, and the sources behind data."""

from pathlib import Path
from typing import Annotated

import typer

from api.client import DEFAULT_URL, ClientError
from api.client.ica import ArrayForm, MatrixForm, data_in
from api.connecting import Checkpoint, JobArgument, Url, connected
from api.terminal import failure, form_of, write

app = typer.Typer()
_MATRIX_FORMS: dict[str, MatrixForm] = {".json": "json", ".npz": "npz", ".csv": "csv"}
_ARRAY_FORMS: dict[str, ArrayForm] = {".json": "json", ".npz": "npz"}

MatrixOutput = Annotated[
    Path, typer.Option("--output", "-o", help="File ending in .json, .npz or .csv.")
]


@app.command()
def mixing(
    job: JobArgument,
    output: MatrixOutput = Path("mixing.json"),
    checkpoint: Checkpoint = "latest",
    url: Url = DEFAULT_URL,
) -> None:
    """Write an ica job's mixing matrix, with FastICA's beside it, into a file."""
    form = form_of(output, _MATRIX_FORMS)
    with connected(url) as client:
        write(output, client.job(job).ica.mixing_bytes(form, checkpoint))


@app.command()
def unmixing(
    job: JobArgument,
    output: MatrixOutput = Path("unmixing.json"),
    checkpoint: Checkpoint = "latest",
    url: Url = DEFAULT_URL,
) -> None:
    """Write the pseudo-inverse of an ica job's mixing matrix into a file."""
    form = form_of(output, _MATRIX_FORMS)
    with connected(url) as client:
        write(output, client.job(job).ica.unmixing_bytes(form, checkpoint))


@app.command()
def sources(
    job: JobArgument,
    data: Annotated[Path, typer.Argument(help="Data N×X: .npz, .csv or .json.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File ending in .json or .npz.")
    ] = Path("sources.json"),
    checkpoint: Checkpoint = "latest",
    url: Url = DEFAULT_URL,
) -> None:
    """Find the sources behind data, their means and variances, into a file."""
    form = form_of(output, _ARRAY_FORMS)
    try:
        rows = data_in(data)
    except (OSError, ValueError, ClientError) as error:
        raise failure(f"{data}: {error}") from None
    with connected(url) as client:
        write(output, client.job(job).ica.sources_bytes(form, rows, checkpoint))
