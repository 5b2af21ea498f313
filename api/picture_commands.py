"""The commands that draw: samples, reconstructions, interpolations, film strips."""

from pathlib import Path
from typing import Annotated

import typer

from api.client import DEFAULT_URL
from api.client.job import Between, Form, PathKind
from api.connecting import Checkpoint, JobArgument, Url, connected
from api.terminal import form_of, integers, terminal, write

app = typer.Typer()
_FORMS: dict[str, Form] = {".png": "png", ".npz": "npz", ".json": "json"}

Output = Annotated[Path, typer.Option("--output", "-o", help="File ending in .png, .npz or .json.")]


@app.command()
def samples(
    job: JobArgument,
    output: Output = Path("samples.png"),
    n: Annotated[int, typer.Option("-n", help="How many.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the latents.")] = 0,
    checkpoint: Checkpoint = "latest",
    spread: Annotated[bool, typer.Option("--spread", help="Add the spread's noise.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Draw samples into a file."""
    form = form_of(output, _FORMS)
    with connected(url) as client:
        content = client.job(job).samples_bytes(form, n, seed, checkpoint, spread=spread)
        write(output, content)


@app.command()
def reconstructions(
    job: JobArgument,
    output: Output = Path("reconstructions.png"),
    n: Annotated[int, typer.Option("-n", help="How many held-out data.")] = 16,
    seed: Annotated[int, typer.Option(help="Seed of the choice and the noise.")] = 0,
    checkpoint: Checkpoint = "latest",
    url: Url = DEFAULT_URL,
) -> None:
    """Encode held-out data and decode them again, into a file."""
    form = form_of(output, _FORMS)
    with connected(url) as client:
        write(output, client.job(job).reconstructions_bytes(form, n, seed, checkpoint))


@app.command()
def interpolations(
    job: JobArgument,
    output: Output = Path("interpolations.png"),
    n: Annotated[int, typer.Option("-n", help="How many paths.")] = 8,
    steps: Annotated[int, typer.Option(help="Points of each path.")] = 10,
    between: Annotated[Between, typer.Option(help="What is at the ends.")] = "prior",
    path: Annotated[PathKind, typer.Option(help="The way from end to end.")] = "spherical",
    seed: Annotated[int, typer.Option(help="Seed of the ends.")] = 0,
    checkpoint: Checkpoint = "latest",
    url: Url = DEFAULT_URL,
) -> None:
    """Draw paths from one latent to another into a file."""
    form = form_of(output, _FORMS)
    with connected(url) as client:
        content = client.job(job).interpolations_bytes(
            form, n, seed, checkpoint, steps=steps, between=between, path=path
        )
        write(output, content)


@app.command()
def filmstrip(
    job: JobArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG file.")] = Path(
        "filmstrip.png"
    ),
    epochs: Annotated[str | None, typer.Option(help="Only these epochs, as 1,5,10.")] = None,
    n: Annotated[int, typer.Option("-n", help="Latents, one column each.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the latents.")] = 0,
    url: Url = DEFAULT_URL,
) -> None:
    """Draw the same latents over all checkpoints into a PNG."""
    with connected(url) as client:
        output.write_bytes(client.job(job).filmstrip_png(integers("--epochs", epochs), n, seed))
        terminal().print(str(output), markup=False)
