"""The commands about figures of the paper: compute one, fetch it, join what several jobs share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from api.client import DEFAULT_URL, JobHandle
from api.connecting import JobArgument, Url, connected
from api.terminal import dataset_ref, failure, given, labels_of, terminal, write
from api.watching import follow_job

app = typer.Typer()

Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Folder of its three files; figure-FIGURE.")
]


@app.command()
def paper(
    figure: Annotated[str, typer.Argument(help="Such as 2, 4a, eq12, mle-existence.")],
    output: Output = None,
    scale: Annotated[
        Literal["quick", "paper"] | None, typer.Option(help="Minutes, or the paper's sizes.")
    ] = None,
    repetitions: Annotated[
        int | None, typer.Option(min=1, help="How often what is random is repeated.")
    ] = None,
    first_repetition: Annotated[
        int | None, typer.Option(min=0, help="Number of the first, of 4a and 4b.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Data set, for figures that show one.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all that is drawn.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the job, for people.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="key=value; several times.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and estimate only.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Compute a figure of the paper: its picture, its numbers, and which claims hold."""
    trainer = given(scale=scale, repetitions=repetitions, first_repetition=first_repetition)
    spec = {
        "trainer": {"kind": "paper", "figure": figure, **trainer},
        **given(dataset=dataset_ref(dataset), seed=seed),
    }
    labels = labels_of(label)
    with connected(url) as client:
        plan = client.plan(spec, name=name, labels=labels)
        if dry_run:
            terminal().print_json(plan.model_dump_json())
            return
        for advice in plan.advice:
            terminal().print(f"note: {advice}", markup=False)
        job = client.submit(spec, name=name, labels=labels)
        terminal().print(job.id)
        _fetch(job, output)


@app.command("figure")
def fetch_figure(job: JobArgument, output: Output = None, url: Url = DEFAULT_URL) -> None:
    """Wait for a job that computes a figure, and fetch its files."""
    with connected(url) as client:
        _fetch(client.job(job), output)


def _fetch(job: JobHandle, output: Path | None) -> None:
    figure = job.body.spec["trainer"].get("figure")
    if figure is None:
        raise failure(f"{job.id} computes no figure: its trainer is {job.body.trainer}")
    done = follow_job(job, terminal())
    folder = output or Path(f"figure-{figure}")
    files = done.figure.download(folder)
    for verdict in done.figure.numbers_in(folder).verdicts:
        terminal().print(str(verdict), markup=False)
    for file in files:
        terminal().print(str(file), markup=False)


@app.command("join-figure")
def join_figure(
    shares: Annotated[
        list[Path], typer.Argument(help="Folders with the files of jobs that share a figure.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the whole.")],
) -> None:
    """Make one figure of the repetitions that several jobs have computed."""
    # Here, as only this command needs torch.
    from workers.paper.base import NOTHING
    from workers.paper.joining import Share, joined
    from workers.paper.results import files_of

    try:
        found = [Share.read(folder) for folder in shares]
        figure, rows = joined(found)
        verdicts = figure.verdicts(rows)
        output.mkdir(parents=True, exist_ok=True)
        asked = {"shares": [share.asked for share in found]}
        for file in files_of(figure, asked, rows, NOTHING, verdicts):
            write(output / file.name, file.content)
    except (ValueError, OSError) as error:
        raise failure(str(error)) from None
    for verdict in verdicts:
        terminal().print(f"{verdict.word}: {verdict.text}", markup=False)
