"""The command line ``spreadtrain``, built on the Python client."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from api import (
    dataset_commands,
    explain_command,
    ica_commands,
    installation_commands,
    key_commands,
    lifecycle_commands,
    paper_commands,
    picture_commands,
    retention_commands,
    study_answer_commands,
    study_commands,
)
from api.bodies import State
from api.client import DEFAULT_URL, ClientError
from api.connecting import INTERRUPTED, Checkpoint, JobArgument, Patience, Url, connected
from api.terminal import (
    dataset_ref,
    failure,
    given,
    integers,
    labels_of,
    print_log_line,
    read_json,
    say_waiting,
    terminal,
)
from api.watching import PATIENCE_S, watch_job

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="Train implicit generative models by spread divergence.",
)
app.add_typer(explain_command.app)
app.add_typer(lifecycle_commands.app)
app.add_typer(dataset_commands.app)
app.add_typer(picture_commands.app)
app.add_typer(ica_commands.app)
app.add_typer(paper_commands.app)
app.add_typer(retention_commands.app)
app.add_typer(key_commands.app, name="keys")
app.add_typer(installation_commands.app)
study_commands.app.add_typer(study_answer_commands.app)
app.add_typer(study_commands.app, name="study")
ID_WIDTH = len("job-0123456789abcdef")


@app.command()
def serve(
    port: Annotated[int | None, typer.Option(help="TCP port; 0 takes a free one.")] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; loopback unless there are keys.")
    ] = None,
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
    ray: Annotated[bool, typer.Option("--ray/--no-ray", help="Start or join Ray, too.")] = True,
) -> None:
    """Try every part that these settings name, and say what is wrong; exit 1 if one fails."""
    from service.checks import check_installation
    from service.errors import ConfigurationError
    from service.settings import Settings

    table = Table("part", "state", "detail", box=None)
    try:
        settings = Settings.from_environment()
        changed = given(data_dir=data_dir)
        asked = Settings.checked(settings.model_dump() | changed)
        findings = list(check_installation(asked, with_ray=ray))
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
    spread: Annotated[
        str | None, typer.Option(help="laplace, gaussian, logistic or student_t.")
    ] = None,
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
    labels = labels_of(label)
    with connected(url) as client:
        if dry_run:
            plan = client.plan(body, name=name, labels=labels)
            terminal().print_json(plan.model_dump_json())
            return
        job = client.submit(body, name=name, labels=labels)
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
    study: Annotated[str | None, typer.Option(help="Only trials of this study.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    url: Url = DEFAULT_URL,
) -> None:
    """List jobs, newest first."""
    identifier = Column("id", no_wrap=True, min_width=ID_WIDTH)  # is to be copied, never cut
    table = Table(
        identifier, "state", "reason", "progress", "trainer", "data", "name", "submitted", box=None
    )
    with connected(url) as client:
        found = client.jobs(
            state=state,
            trainer=trainer,
            dataset=dataset,
            label=label,
            study=study,
            page_size=min(limit, 100),
        )
        for job, _ in zip(found, range(limit), strict=False):
            done = f"{job.progress.fraction:.0%}" if job.progress else ""
            submitted = f"{job.created_at.astimezone():%Y-%m-%d %H:%M:%S}"
            cells = (
                job.id,
                job.state,
                job.reason,
                done,
                job.trainer,
                job.dataset or "",
                job.name,
                submitted,
            )
            table.add_row(*(escape(cell) for cell in cells))
    terminal().print(table)


@app.command()
def show(job: JobArgument, url: Url = DEFAULT_URL) -> None:
    """Show a job as JSON."""
    with connected(url) as client:
        terminal().print_json(client.job(job).body.model_dump_json())


@app.command()
def watch(job: JobArgument, patience_s: Patience = PATIENCE_S, url: Url = DEFAULT_URL) -> None:
    """Follow a job to its end; Ctrl-C stops watching, not the job."""
    with connected(url) as client:
        watch_job(client.job(job), terminal(), patience_s)


@app.command()
def logs(
    job: JobArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job ends.")
    ] = False,
    attempt: Annotated[int | None, typer.Option(min=1, help="Only this attempt.")] = None,
    rank: Annotated[
        int | None, typer.Option(min=0, help="Only this worker; the first is 0.")
    ] = None,
    tail: Annotated[
        int | None, typer.Option(min=0, help="Only so many lines from the end.")
    ] = None,
    patience_s: Patience = PATIENCE_S,
    url: Url = DEFAULT_URL,
) -> None:
    """Print what a job's attempts said: their progress, warnings, output and crashes."""
    with connected(url) as client:
        found = client.job(job).logs(
            attempt=attempt,
            rank=rank,
            tail=tail,
            follow=follow,
            patience_s=patience_s,
            told=say_waiting,
        )
        for line in found:
            print_log_line(line)


@app.command()
def weights(
    job: JobArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="safetensors file.")] = Path(
        "weights.safetensors"
    ),
    checkpoint: Checkpoint = "latest",
    redirect: Annotated[
        bool, typer.Option("--redirect", help="From the store itself, where that is offered.")
    ] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Fetch a checkpoint's weights, for Generator.load."""
    with connected(url) as client:
        fetched = client.job(job).download_weights(output, checkpoint, redirect=redirect)
        terminal().print(str(fetched), markup=False)


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
