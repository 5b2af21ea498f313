"""What the command line reads from its arguments and writes to the terminal."""

import json
import sys
from pathlib import Path
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from api.bodies import LogLineBody, spoken_by

PIPE_WIDTH = 250
TOYS = ("ring", "line", "two-moons", "surface")
DRAWN = (*TOYS, "laplace-ica")
_F = TypeVar("_F")


def terminal() -> Console:
    """Standard output; a pipe or file is as wide as its lines."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(highlight=False, soft_wrap=True, width=width)


def print_log_line(line: LogLineBody) -> None:
    """A line of a log on standard output, at once and as it is."""
    at = line.at.astimezone()
    when = f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d}"
    typer.echo(f"{when} {line.level:8} {spoken_by(line.rank)}{line.text}")


def say_waiting() -> None:
    """Say on standard error that the service does not answer, and is waited for."""
    typer.echo("waiting for the service", err=True)


def failure(message: str) -> typer.Exit:
    """Say it in red on standard error; raise what this returns to leave with exit code 1."""
    Console(stderr=True, highlight=False).print(
        f"[bold red]error:[/] [red]{escape(message)}[/]", soft_wrap=True
    )
    return typer.Exit(1)


def form_of(output: Path, forms: dict[str, _F]) -> _F:
    """The form that the file's ending names; leaves with the endings that there are."""
    form = forms.get(output.suffix)
    if form is None:
        *others, last = forms
        raise failure(f"{output} must end in {', '.join(others)} or {last}")
    return form


def write(output: Path, content: bytes) -> None:
    """Write a file, and say its name."""
    output.write_bytes(content)
    terminal().print(str(output), markup=False)


def given(**values: Any) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def dataset_ref(name: str | None) -> dict[str, str] | None:
    """A spec's data set from its name."""
    if name is None:
        return None
    return {"kind": name} if name in DRAWN else {"name": name}


def integers(flag: str, text: str | None) -> list[int] | None:
    """Whole numbers from a text such as 1,5,10."""
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise failure(f"{flag} takes whole numbers with commas between them") from None


def labels_of(pairs: list[str] | None) -> dict[str, str] | None:
    """Labels from texts such as team=a."""
    if not pairs:
        return None
    labels = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise failure(f"--label takes key=value, not {pair}")
        labels[key] = value
    return labels


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file, or from standard input for ``-``."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        body = json.loads(text)
        # What no JSON can be: NaN and infinity, also from 1e999, and half a surrogate pair.
        json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise failure(f"{file} holds half a surrogate pair, which is no text") from None
    except (OSError, ValueError, RecursionError) as error:
        raise failure(f"{file} is not readable JSON: {error}") from None
    if not isinstance(body, dict):
        raise failure(f"{file} must hold a JSON object")
    return body
