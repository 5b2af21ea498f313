"""``spreadtrain study``: submit, presets, list, show, watch, and what becomes of a study."""

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from api import bodies
from api.bodies import State
from api.client import DEFAULT_URL, Client, StudyFailed, StudyHandle
from api.connecting import Patience, Url, connected
from api.study_words import told_of_best
from api.terminal import failure, given, integers, read_json, say_waiting, terminal
from api.watching import PATIENCE_S

app = typer.Typer(no_args_is_help=True, help="Search specs: studies, whose trials are jobs.")
ID_WIDTH = len("study-0123456789abcdef")
StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="Id of the study.")]
Watch = Annotated[bool, typer.Option("--watch", help="Follow it to its end.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and estimate only.")]


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(help="JSON of the request; - reads stdin.")],
    trials: Annotated[int | None, typer.Option(help="Another budget of configurations.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Other trials at one time.")] = None,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    watch: Watch = False,
    dry_run: DryRun = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Submit a study from a file."""
    request = read_json(file) | given(concurrency=concurrency, name=name)
    if trials is not None:
        request["budget"] = {**request.get("budget", {}), "trials": trials}
    with connected(url) as client:
        _submit(client, request, watch=watch, dry_run=dry_run)


@app.command()
def preset(
    name: Annotated[str, typer.Argument(metavar="PRESET", help="spread-scale or ica-sigma.")] = "",
    dataset: Annotated[str | None, typer.Option(help="Data set or toy.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.")] = None,
    trials: Annotated[int | None, typer.Option(help="Configurations.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Trials at one time.")] = None,
    learned: Annotated[
        bool | None, typer.Option(help="Whether a learned covariance is tried beside none.")
    ] = None,
    hidden: Annotated[str | None, typer.Option(help="Widths of the layers, as 400,400.")] = None,
    latent_dim: Annotated[int | None, typer.Option(help="Dimensions of the latent.")] = None,
    features: Annotated[str | None, typer.Option(help="Network in whose features KID is.")] = None,
    check: Annotated[str | None, typer.Option(help="Another network, as a check.")] = None,
    components: Annotated[int | None, typer.Option(help="Sources of ica.")] = None,
    low: Annotated[float | None, typer.Option(help="Least deviation of ica's noise.")] = None,
    high: Annotated[float | None, typer.Option(help="Largest deviation of ica's noise.")] = None,
    send: Annotated[
        bool, typer.Option("--submit", help="Submit it; without this it is printed, to be edited.")
    ] = False,
    watch: Watch = False,
    dry_run: DryRun = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Make a standing question's request for a data set; without a name they are listed."""
    integers("--hidden", hidden)
    options = given(
        dataset=dataset,
        epochs=epochs,
        trials=trials,
        concurrency=concurrency,
        learned=learned,
        hidden=hidden,
        latent_dim=latent_dim,
        features=features,
        check=check,
        components=components,
        low=low,
        high=high,
    )
    with connected(url) as client:
        if not name:
            table = Table("preset", "question", "answered by", box=None)
            for one in client.studies.presets():
                table.add_row(one.name, one.title, one.description)
            terminal().print(table)
            return
        found = client.studies.preset(name, **options)
        if not (send or watch or dry_run):
            typer.echo(json.dumps(found.request, indent=2, ensure_ascii=False))
            return
        for note in found.notes:
            typer.echo(f"note: {note}", err=True)
        _submit(client, found.request, watch=watch, dry_run=dry_run, plots=found.plots, url=url)


def _submit(
    client: Client,
    request: dict[str, Any],
    *,
    watch: bool,
    dry_run: bool,
    plots: Sequence[Sequence[str]] = (),
    url: str = DEFAULT_URL,
) -> None:
    if dry_run:
        terminal().print_json(client.studies.plan(request).model_dump_json())
        return
    study = client.submit_study(request)
    terminal().print(study.id)
    for caution in study.body.cautions:
        typer.echo(f"note: {caution.pointer} {caution.message}", err=True)
    if plots:
        typer.echo("its answer, once trials have run to their end:", err=True)
    for command in _drawing(study.id, plots, url):
        typer.echo(f"  {command}", err=True)
    if watch:
        watch_study(study)


def _drawing(study: str, plots: Sequence[Sequence[str]], url: str) -> Iterator[str]:
    """The commands that draw these curves, each into a file of its own."""
    for pointers in plots:
        file = "-".join(pointer.rpartition("/")[2] for pointer in pointers)
        words = ["spreadtrain", "study", "curve", study, *pointers, "-o", f"{file}.png"]
        yield shlex.join(words if url == DEFAULT_URL else [*words, "--url", url])


@app.command("list")
def list_studies(
    state: Annotated[State | None, typer.Option(help="Only studies in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    url: Url = DEFAULT_URL,
) -> None:
    """List studies, newest first."""
    identifier = Column("id", no_wrap=True, min_width=ID_WIDTH)  # is to be copied, never cut
    table = Table(identifier, "state", "reason", "trials", "objective", "name", box=None)
    with connected(url) as client:
        found = client.studies.list(state=state, page_size=min(limit, 100))
        for study, _ in zip(found, range(limit), strict=False):
            objective = f"{study.objective.mode} {study.objective.metric}"
            marked = f"{objective} (guard overridden)" if study.is_overridden else objective
            cells = (study.id, study.state, study.reason, str(study.trials), marked, study.name)
            table.add_row(*(escape(cell) for cell in cells))
    terminal().print(table)


@app.command()
def show(study: StudyArgument, url: Url = DEFAULT_URL) -> None:
    """Show a study as JSON."""
    with connected(url) as client:
        terminal().print_json(client.studies.get(study).body.model_dump_json())


@app.command()
def watch(study: StudyArgument, patience_s: Patience = PATIENCE_S, url: Url = DEFAULT_URL) -> None:
    """Follow a study to its end; Ctrl-C stops watching, not the study."""
    with connected(url) as client:
        watch_study(client.studies.get(study), patience_s)


def watch_study(study: StudyHandle, patience_s: float = PATIENCE_S) -> None:
    """Print a line whenever the study has come further, and the best at its end; raises StudyFailed
    unless it succeeds. A service that does not answer is waited for."""
    said = ""
    for body in study.watch(patience_s=patience_s, told=say_waiting):
        line = _progress(body)
        if line != said:
            terminal().print(line, markup=False)
        said = line
    if study.state != "succeeded":
        raise StudyFailed(study.id, study.state, study.body.reason, study.body.message)
    for line in told_of_best(study.best()):
        terminal().print(line, markup=False)


def _progress(body: bodies.StudyBody) -> str:
    search, fresh = body.progress.search, body.progress.confirmation
    parts = [
        f"{body.state} ({body.reason}): {search.succeeded} trials done, {search.running} running, "
        f"{search.failed} failed, {body.progress.trials_left} to come"
    ]
    if fresh.succeeded or fresh.running or fresh.queued:
        parts.append(f"on fresh seeds {fresh.succeeded} done, {fresh.running} running")
    if body.best_so_far is not None and body.ended_at is None:
        parts.append(f"candidate {body.best_so_far.configuration} at {body.best_so_far.value:.4g}")
    return "; ".join(parts)


@app.command()
def extend(
    study: StudyArgument,
    trials: Annotated[int | None, typer.Option(help="Configurations in all.")] = None,
    max_wall_s: Annotated[float | None, typer.Option(help="Seconds of the search.")] = None,
    max_epochs: Annotated[int | None, typer.Option(help="Epochs of the search.")] = None,
    watch: Watch = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Raise a study's budget; a finished one goes on from all that it knows."""
    budget = given(trials=trials, max_wall_s=max_wall_s, max_epochs=max_epochs)
    if not budget:
        raise failure("give a limit to raise: --trials, --max-wall-s or --max-epochs")
    with connected(url) as client:
        _going_on(client.studies.get(study).extend(**budget), watch=watch)


@app.command()
def pause(study: StudyArgument, url: Url = DEFAULT_URL) -> None:
    """Ask a study's trials for a checkpoint, and to give their resources back."""
    with connected(url) as client:
        _asked(client.studies.get(study).pause(), "pause")


@app.command()
def cancel(study: StudyArgument, url: Url = DEFAULT_URL) -> None:
    """Ask a study to end with its trials; what was found stays."""
    with connected(url) as client:
        _asked(client.studies.get(study).cancel(), "cancel")


@app.command()
def resume(study: StudyArgument, watch: Watch = False, url: Url = DEFAULT_URL) -> None:
    """Let a paused study go on."""
    with connected(url) as client:
        _going_on(client.studies.get(study).resume(), watch=watch)


@app.command()
def retry(study: StudyArgument, watch: Watch = False, url: Url = DEFAULT_URL) -> None:
    """Let a failed or cancelled study go on from all that it knows."""
    with connected(url) as client:
        _going_on(client.studies.get(study).retry(), watch=watch)


@app.command()
def delete(study: StudyArgument, url: Url = DEFAULT_URL) -> None:
    """Delete a study that has ended, with its trials and their checkpoints."""
    with connected(url) as client:
        client.studies.get(study).delete()
        terminal().print(f"{study}: deleted")


def _asked(study: StudyHandle, verb: str) -> None:
    terminal().print(f"{study.id}: {verb} requested; its state is {study.state}")


def _going_on(study: StudyHandle, *, watch: bool) -> None:
    terminal().print(f"{study.id}: {study.state}; {study.body.message}", markup=False)
    if watch:
        watch_study(study)
