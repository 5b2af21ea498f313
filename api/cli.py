"""The command line ``spreadtrain``, built on the Python client."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from api.bodies import State
from api.client import DEFAULT_URL, Client, ClientError
from api.client.job import SampleForm
from api.terminal import (
    dataset_ref,
    failure,
    given,
    integers,
    labels_of,
    print_log_line,
    read_json,
    terminal,
)
from api.watching import watch_job

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="Train implicit generative models by spread divergence.",
)
ID_WIDTH = len("job-0123456789abcdef")
FORMS: dict[str, SampleForm] = {".png": "png", ".npz": "npz", ".json": "json"}
INTERRUPTED = 130  # what shells report for Ctrl-C

Url = Annotated[
    str, typer.Option("--url", envvar="SPREADTRAIN_URL", help="Address of the service.")
]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.")]
Checkpoint = Annotated[
    str, typer.Option("--checkpoint", help="Id of a checkpoint, or latest, or best.")
]


@contextlib.contextmanager
def _connected(url: str) -> Iterator[Client]:
    """A client; what goes wrong becomes one red line and exit code 1."""
    try:
        with Client(url) as client:
            yield client
    except (ClientError, TimeoutError) as error:
        raise failure(str(error)) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise failure(f"{where}{error.strerror or error}") from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


@app.command()
def serve(
    port: Annotated[int | None, typer.Option(help="TCP port; 0 takes a free one.")] = None,
    host: Annotated[str | None, typer.Option(help="Loopback address to listen on.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of everything it keeps.")] = None,
) -> None:
    """Run the service in the foreground until Ctrl-C or SIGTERM."""
    # Here, as only this command needs torch and Ray.
    from api.main import serve as run
    from service.errors import ConfigurationError
    from service.settings import Settings

    try:
        settings = Settings.from_environment()
        changed = given(port=port, host=host, data_dir=data_dir)
        run(Settings.checked(settings.model_dump() | changed))
    except ConfigurationError as error:
        raise failure(str(error)) from None


@app.command()
def check(
    data_dir: Annotated[Path | None, typer.Option(help="Folder of everything it keeps.")] = None,
) -> None:
    """Try the data folder, the database and the storage of these settings; exit 1 if one fails."""
    from service.checks import check_installation
    from service.errors import ConfigurationError
    from service.settings import Settings

    table = Table("part", "state", "detail", box=None)
    try:
        settings = Settings.from_environment()
        changed = given(data_dir=data_dir)
        findings = list(check_installation(Settings.checked(settings.model_dump() | changed)))
    except ConfigurationError as error:
        raise failure(str(error)) from None
    for finding in findings:
        table.add_row(finding.part, finding.state, escape(finding.detail))
    terminal().print(table)
    if any(finding.state == "wrong" for finding in findings):
        raise typer.Exit(1)


@app.command()
def submit(
    file: Annotated[
        Path | None, typer.Argument(help="JSON of a spec or a whole request; - reads stdin.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Data set or toy.")] = None,
    spread: Annotated[str | None, typer.Option(help="laplace or gaussian.")] = None,
    scale: Annotated[float | None, typer.Option(help="Standard deviation of the noise.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run.")] = None,
    hidden: Annotated[str | None, typer.Option(help="Widths of the layers, as 400,400.")] = None,
    latent_dim: Annotated[int | None, typer.Option(help="Dimensions of the latent.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Step size of Adam.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the job, for people.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="key=value; several times.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it to its end.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and estimate only.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Submit a training job, from a file or from flags."""
    spread_flags = given(kind=spread, scale=scale)
    network = given(hidden=integers("--hidden", hidden), latent_dim=latent_dim)
    trainer = given(
        spread={"kind": "laplace", **spread_flags} if spread_flags else None,
        network={"kind": "mlp", **network} if network else None,
        optimizer=given(learning_rate=learning_rate) or None,
        epochs=epochs,
    )
    flags = given(dataset=dataset_ref(dataset), seed=seed, trainer=trainer or None)
    if file is not None and flags:
        raise failure("give the spec as a file or as flags, not both")
    spec = {"dataset": {"name": "mnist-10k"}, **flags, "trainer": {"kind": "delta_vae", **trainer}}
    body = spec if file is None else read_json(file)
    with _connected(url) as client:
        if dry_run:
            terminal().print_json(client.plan(body).model_dump_json())
            return
        job = client.submit(body, name=name, labels=labels_of(label))
        terminal().print(job.id)
        if watch:
            watch_job(job, terminal())


@app.command("list")
def list_jobs(
    state: Annotated[State | None, typer.Option(help="Only jobs in this state.")] = None,
    trainer: Annotated[str | None, typer.Option(help="Only this kind of trainer.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only this data set or toy.")] = None,
    label: Annotated[str | None, typer.Option(help="Only with this label: key or key=value.")] = (
        None
    ),
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    url: Url = DEFAULT_URL,
) -> None:
    """List jobs, newest first."""
    identifier = Column("id", no_wrap=True, min_width=ID_WIDTH)  # is to be copied, never cut
    table = Table(identifier, "state", "progress", "trainer", "data", "name", "submitted", box=None)
    with _connected(url) as client:
        found = client.jobs(
            state=state,
            trainer=trainer,
            dataset=dataset,
            label=label,
            page_size=min(limit, 100),
        )
        for job, _ in zip(found, range(limit), strict=False):
            done = f"{job.progress.fraction:.0%}" if job.progress else ""
            submitted = f"{job.created_at.astimezone():%Y-%m-%d %H:%M:%S}"
            cells = (job.id, job.state, done, job.trainer, job.dataset, job.name, submitted)
            table.add_row(*(escape(cell) for cell in cells))
    terminal().print(table)


@app.command()
def show(job: JobArgument, url: Url = DEFAULT_URL) -> None:
    """Show a job as JSON."""
    with _connected(url) as client:
        terminal().print_json(client.job(job).body.model_dump_json())


@app.command()
def watch(job: JobArgument, url: Url = DEFAULT_URL) -> None:
    """Follow a job to its end; Ctrl-C stops watching, not the job."""
    with _connected(url) as client:
        watch_job(client.job(job), terminal())


@app.command()
def logs(
    job: JobArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job ends.")
    ] = False,
    attempt: Annotated[int | None, typer.Option(min=1, help="Only this attempt.")] = None,
    tail: Annotated[
        int | None, typer.Option(min=0, help="Only so many lines from the end.")
    ] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Print what a job's attempts said: their progress, warnings, output and crashes."""
    with _connected(url) as client:
        for line in client.job(job).logs(attempt=attempt, tail=tail, follow=follow):
            print_log_line(line)


@app.command()
def cancel(job: JobArgument, url: Url = DEFAULT_URL) -> None:
    """Ask a job to end."""
    with _connected(url) as client:
        found = client.job(job).cancel()
        terminal().print(f"{found.id}: cancel requested; its state is {found.state}")


@app.command()
def samples(
    job: JobArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File ending in .png, .npz or .json.")
    ] = Path("samples.png"),
    n: Annotated[int, typer.Option("-n", help="How many.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the latents.")] = 0,
    checkpoint: Checkpoint = "latest",
    spread: Annotated[bool, typer.Option("--spread", help="Add the spread's noise.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Draw samples into a file."""
    form = FORMS.get(output.suffix)
    if form is None:
        raise failure(f"{output} must end in .png, .npz or .json")
    with _connected(url) as client:
        handle = client.job(job)
        output.write_bytes(handle.samples_bytes(form, n, seed, checkpoint, spread=spread))
        terminal().print(str(output), markup=False)


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
    with _connected(url) as client:
        output.write_bytes(client.job(job).filmstrip_png(integers("--epochs", epochs), n, seed))
        terminal().print(str(output), markup=False)


@app.command()
def weights(
    job: JobArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="safetensors file.")] = Path(
        "weights.safetensors"
    ),
    checkpoint: Checkpoint = "latest",
    url: Url = DEFAULT_URL,
) -> None:
    """Fetch a checkpoint's weights, for Generator.load."""
    with _connected(url) as client:
        terminal().print(str(client.job(job).download_weights(output, checkpoint)), markup=False)


@app.command()
def datasets(url: Url = DEFAULT_URL) -> None:
    """List the data sets."""
    table = Table("name", "shape", "count", "size", "", "what it is", box=None)
    with _connected(url) as client:
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
    with _connected(url) as client:
        info = client.upload(name, file, replace=replace)
        terminal().print(f"{info.name}: {info.title}, {info.digest}", markup=False)


@app.command("delete-dataset")
def delete_dataset(
    name: Annotated[str, typer.Argument(help="Name of an uploaded data set.")],
    url: Url = DEFAULT_URL,
) -> None:
    """Forget an uploaded data set; refused while jobs use it."""
    with _connected(url) as client:
        client.delete_dataset(name)
        terminal().print(f"{name} is deleted", markup=False)


@app.command()
def trainers(url: Url = DEFAULT_URL) -> None:
    """List the trainers."""
    table = Table("name", "what it is", box=None)
    with _connected(url) as client:
        for info in client.trainers():
            table.add_row(info.name, escape(info.description))
    terminal().print(table)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the pictures.")] = Path(
        "demo-output"
    ),
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data.")] = 60,
) -> None:
    """Start a service, train on 10,000 digits, fetch samples, stop the service."""
    from api.demo import run_demo

    try:
        run_demo(output, epochs, terminal())
    except (ClientError, RuntimeError, OSError) as error:
        raise failure(str(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


if __name__ == "__main__":
    app()
