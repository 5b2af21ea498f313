"""The commands about what a spec can name: data sets and trainers."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from api.client import DEFAULT_URL
from api.connecting import Url, connected
from api.terminal import terminal

app = typer.Typer()


@app.command()
def datasets(url: Url = DEFAULT_URL) -> None:
    """List the data sets."""
    table = Table("name", "shape", "count", "size", "", "what it is", box=None)
    with connected(url) as client:
        for info in client.datasets():
            shape = "×".join(str(size) for size in info.shape)
            usable = "" if info.available else "not here"
            what = info.title if info.available else info.detail
            size = f"{info.size_bytes / 1e6:,.1f} MB"
            table.add_row(info.name, shape, f"{info.count:,}", size, usable, escape(what))
    terminal().print(table)


@app.command()
def upload(
    name: Annotated[str, typer.Argument(help="Name of the data set.")],
    file: Annotated[Path, typer.Argument(help="npz, idx, csv, or a zip of PNG or JPEG pictures.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Move the name, where it has other content.")
    ] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Upload a file as a data set, which jobs can then name."""
    with connected(url) as client:
        info = client.upload(name, file, replace=replace)
        terminal().print(f"{info.name}: {info.title}, {info.digest}", markup=False)


@app.command("delete-dataset")
def delete_dataset(
    name: Annotated[str, typer.Argument(help="Name of an uploaded data set.")],
    url: Url = DEFAULT_URL,
) -> None:
    """Forget an uploaded data set; refused while jobs use it."""
    with connected(url) as client:
        client.delete_dataset(name)
        terminal().print(f"{name} is deleted", markup=False)


@app.command()
def trainers(url: Url = DEFAULT_URL) -> None:
    """List the trainers."""
    table = Table("name", "what it is", box=None)
    with connected(url) as client:
        for info in client.trainers():
            table.add_row(info.name, escape(info.description))
    terminal().print(table)
