"""What every command line command shares: the service's address, and errors as one red line."""

import contextlib
from collections.abc import Iterator
from typing import Annotated

import typer

from api.client import Client, ClientError
from api.terminal import failure

INTERRUPTED = 130  # what shells report for Ctrl-C

Url = Annotated[
    str, typer.Option("--url", envvar="SPREADTRAIN_URL", help="Address of the service.")
]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.")]
Checkpoint = Annotated[
    str, typer.Option("--checkpoint", help="Id of a checkpoint, or latest, or best.")
]

Patience = Annotated[
    float,
    typer.Option(
        "--patience-s",
        min=0,
        help="Seconds to wait for a service that does not answer; Ctrl-C ends it.",
    ),
]


@contextlib.contextmanager
def connected(url: str) -> Iterator[Client]:
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
