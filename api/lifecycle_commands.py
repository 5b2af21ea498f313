"""The commands of a job's life: cancel, pause, resume, retry, fork."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from api.client import DEFAULT_URL, JobHandle
from api.connecting import Checkpoint, JobArgument, Url, connected
from api.terminal import failure, given, labels_of, read_json, terminal
from api.watching import watch_job

app = typer.Typer()
Watch = Annotated[bool, typer.Option("--watch", help="Follow it to its end.")]


@app.command()
def cancel(job: JobArgument, url: Url = DEFAULT_URL) -> None:
    """Ask a job to end."""
    with connected(url) as client:
        found = client.job(job).cancel()
        terminal().print(f"{found.id}: cancel requested; its state is {found.state}")


@app.command()
def pause(job: JobArgument, url: Url = DEFAULT_URL) -> None:
    """Ask a job to publish a checkpoint and give its resources back."""
    with connected(url) as client:
        found = client.job(job).pause()
        terminal().print(f"{found.id}: pause requested; its state is {found.state}")


@app.command()
def resume(job: JobArgument, watch: Watch = False, url: Url = DEFAULT_URL) -> None:
    """Let a paused job go on from its last checkpoint."""
    with connected(url) as client:
        _going_on(client.job(job).resume(), watch=watch)


@app.command()
def retry(
    job: JobArgument,
    max_wall_s: Annotated[
        float | None, typer.Option(help="Another limit on the seconds of training.")
    ] = None,
    max_attempts: Annotated[
        int | None, typer.Option(help="Another limit on the attempts that may be lost.")
    ] = None,
    watch: Watch = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Let a failed or cancelled job go on from its last checkpoint, as a new attempt."""
    with connected(url) as client:
        limits = given(max_wall_s=max_wall_s, max_attempts=max_attempts)
        _going_on(client.job(job).retry(limits), watch=watch)


@app.command()
def fork(
    job: JobArgument,
    file: Annotated[
        Path | None,
        typer.Argument(help="JSON of the changes to the spec (RFC 7396); - reads stdin."),
    ] = None,
    checkpoint: Checkpoint = "latest",
    start: Annotated[
        Literal["train_state", "weights"],
        typer.Option(help="Go on with optimiser and step, or begin anew with the weights."),
    ] = "train_state",
    epochs: Annotated[int | None, typer.Option(help="Passes over the data, in all.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Step size of Adam.")] = None,
    scale: Annotated[float | None, typer.Option(help="Standard deviation of the noise.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the fork, for people.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="key=value; several times.")] = None,
    watch: Watch = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Make a new job from a checkpoint of a job, with a changed spec."""
    patch = {} if file is None else read_json(file)
    trainer = given(
        epochs=epochs,
        optimizer=given(learning_rate=learning_rate) or None,
        spread=given(scale=scale) or None,
    )
    if flags := given(seed=seed, trainer=trainer or None):
        if file is not None:
            raise failure("give the changes as a file or as flags, not both")
        patch = flags
    with connected(url) as client:
        forked = client.job(job).fork(
            patch, checkpoint=checkpoint, start=start, name=name, labels=labels_of(label)
        )
        terminal().print(forked.id)
        if watch:
            watch_job(forked, terminal())


def _going_on(job: JobHandle, *, watch: bool) -> None:
    terminal().print(f"{job.id}: {job.state}; {job.body.message}", markup=False)
    if watch:
        watch_job(job, terminal())
