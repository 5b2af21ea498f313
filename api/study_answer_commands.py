"""``spreadtrain study``: what came of one: trials, the best, plots, samples, promotion."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer
from rich.markup import escape
from rich.table import Table

from api.client import DEFAULT_URL, StudyHandle
from api.client.study import Form, Picture
from api.client.study import Table as TableForm
from api.connecting import Url, connected
from api.study_commands import StudyArgument
from api.study_words import told_of_best, values_in_words
from api.terminal import form_of, terminal, write
from api.watching import watch_job

app = typer.Typer()
_F = TypeVar("_F")
_TABLES: dict[str, TableForm] = {".png": "png", ".csv": "csv", ".json": "json"}
_PICTURES: dict[str, Picture] = {".png": "png", ".json": "json"}
_SAMPLES: dict[str, Form] = {".png": "png", ".npz": "npz", ".json": "json"}
Metric = Annotated[
    str | None, typer.Option(help="A metric of the trials; the objective without it.")
]


def _output(*endings: str) -> Any:
    *others, last = endings
    return typer.Option("--output", "-o", help=f"File ending in {', '.join(others)} or {last}.")


@app.command()
def trials(
    study: StudyArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="All of them as a CSV file.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    url: Url = DEFAULT_URL,
) -> None:
    """List a study's trials with their values and results."""
    with connected(url) as client:
        found = client.studies.get(study)
        if output is not None:
            write(output, found.trials_csv().encode())
            return
        metric = found.body.objective.metric
        table = Table(
            "trial", "configuration", "seed", "phase", "state", "reason", "epoch", metric,
            "values", "job", box=None,
        )  # fmt: skip
        for trial, _ in zip(found.trials(), range(limit), strict=False):
            value = trial.metrics.get(metric)
            cells = (
                str(trial.number),
                str(trial.configuration),
                str(trial.seed),
                trial.phase,
                trial.state,
                trial.reason,
                "" if trial.epoch is None else str(trial.epoch),
                "" if value is None else f"{value:.4g}",
                values_in_words(trial.values),
                trial.job,
            )
            table.add_row(*(escape(cell) for cell in cells))
    terminal().print(table)


@app.command()
def best(
    study: StudyArgument,
    as_json: Annotated[bool, typer.Option("--json", help="All of it, as JSON.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Say which configuration is the best, and which cannot be told from it."""
    with connected(url) as client:
        found = client.studies.get(study).best()
        if as_json:
            terminal().print_json(found.model_dump_json())
            return
        for line in told_of_best(found):
            terminal().print(line, markup=False)


@app.command()
def curve(
    study: StudyArgument,
    parameter: Annotated[
        list[str], typer.Argument(metavar="PARAMETER", help="One or two JSON pointers.")
    ],
    output: Annotated[Path, _output(*_TABLES)] = Path("curve.png"),
    metric: Metric = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Draw a metric against what was tuned, with its uncertainty."""
    _drawn(
        url, study, output, _TABLES, lambda s, form: s.curve_bytes(form, *parameter, metric=metric)
    )


@app.command()
def pareto(
    study: StudyArgument,
    output: Annotated[Path, _output(*_PICTURES)] = Path("pareto.png"),
    second: Annotated[
        str | None, typer.Option(help="The metric beside the objective; the second one.")
    ] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Draw two metrics against one another, and what none surpasses."""
    _drawn(url, study, output, _PICTURES, lambda s, form: s.pareto_bytes(form, second))


@app.command()
def importance(
    study: StudyArgument,
    output: Annotated[Path, _output(*_PICTURES)] = Path("importance.png"),
    metric: Metric = None,
    evaluator: Annotated[str, typer.Option(help="ped_anova, fanova or mdi.")] = "ped_anova",
    url: Url = DEFAULT_URL,
) -> None:
    """Draw how much each parameter matters."""
    _drawn(
        url, study, output, _PICTURES, lambda s, form: s.importance_bytes(form, metric, evaluator)
    )


@app.command()
def parallel(
    study: StudyArgument,
    output: Annotated[Path, _output(*_PICTURES)] = Path("parallel.png"),
    metric: Metric = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Draw every trial as a line through its values."""
    _drawn(url, study, output, _PICTURES, lambda s, form: s.parallel_bytes(form, metric))


@app.command()
def samples(
    study: StudyArgument,
    output: Annotated[Path, _output(*_SAMPLES)] = Path("samples.png"),
    n: Annotated[int, typer.Option("-n", help="Latents, one column each.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the latents.")] = 0,
    k: Annotated[int, typer.Option("-k", help="Trials, one row each.")] = 3,
    url: Url = DEFAULT_URL,
) -> None:
    """Draw the same latents over the best trials."""
    _drawn(url, study, output, _SAMPLES, lambda s, form: s.samples_bytes(form, n, seed, k))


def _drawn(
    url: str,
    study: str,
    output: Path,
    forms: dict[str, _F],
    draw: Callable[[StudyHandle, _F], bytes],
) -> None:
    form = form_of(output, forms)
    with connected(url) as client:
        write(output, draw(client.studies.get(study), form))


@app.command()
def promote(
    study: StudyArgument,
    configuration: Annotated[
        int | None, typer.Option(help="Its number; without it the confirmed best.")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Passes over the data, in all; to go on, more than the trial has made. Without it "
            "as many as the trial was to make."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the job.")] = None,
    start: Annotated[
        Literal["train_state", "weights", "scratch"] | None,
        typer.Option(
            help="Go on with optimiser and step, begin anew with the weights, or train from the "
            "first step; without it on, and a schedule of pbt from the first step."
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job to its end.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Let the best trial go on as a job of its own."""
    with connected(url) as client:
        job = client.studies.get(study).promote(
            configuration, epochs=epochs, name=name, start=start
        )
        terminal().print(job.id)
        if watch:
            watch_job(job, terminal())
