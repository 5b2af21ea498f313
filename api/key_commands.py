"""The commands for API keys. They work on the database itself, not through the service."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from api.terminal import failure, given, terminal
from service.access.keys import OWNER, KeyLimits, Scope, new_secret

if TYPE_CHECKING:
    from service.jobstore import JobStore
    from service.settings import Settings

REQUESTS_PER_S = 100.0

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")
DataDir = Annotated[Path | None, typer.Option(help="Folder of everything the service keeps.")]


@app.command()
def create(
    owner: Annotated[
        str, typer.Argument(help="Who has the key; what is made with it belongs to that name.")
    ],
    scope: Annotated[
        Scope, typer.Option(help="read; write, which reads too; admin, which may do everything.")
    ] = Scope.WRITE,
    max_running: Annotated[
        int | None,
        typer.Option(min=0, help="Jobs that run or wait to run at one time; else no limit."),
    ] = None,
    max_storage_bytes: Annotated[
        int | None, typer.Option(min=0, help="Bytes of artifacts and uploads; else no limit.")
    ] = None,
    requests_per_s: Annotated[
        float, typer.Option(min=0.01, help="Requests a second to each process of the service.")
    ] = REQUESTS_PER_S,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it, this once: what is kept of it is a hash.

    A key for an owner who has one can replace it: both may change what either has made.
    """
    from service.access.making import make, stored_key

    if not OWNER.fullmatch(owner):
        raise failure(
            "the owner must begin with a-z or 0-9 and have up to 64 of a-z, 0-9, dot, _ and -"
        )
    secret = new_secret()
    limits = KeyLimits(max_running, max_storage_bytes, requests_per_s)
    with _store(data_dir) as (settings, jobs):
        key = stored_key(secret, owner, scope, limits)
        make(jobs, key, _by(), settings.audit_keep_s)
    typer.echo(f"key {key.id} of {owner}, scope {scope}; it is not shown again:", err=True)
    typer.echo(secret)


@app.command("list")
def list_keys(data_dir: DataDir = None) -> None:
    """List the keys that were made, also those that are revoked."""
    table = Table("id", "owner", "scope", "limits", "made", "revoked", box=None)
    with _store(data_dir) as (_, jobs):
        for key in jobs.keys.all():
            revoked = "" if key.revoked_at is None else f"{key.revoked_at:%Y-%m-%d %H:%M:%S}"
            made = f"{key.created_at:%Y-%m-%d %H:%M:%S}"
            cells = (key.id, key.owner, key.scope.value, _limits(key.limits), made, revoked)
            table.add_row(*(escape(cell) for cell in cells))
    terminal().print(table)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="Id of the key, as list shows it.")],
    data_dir: DataDir = None,
) -> None:
    """Let a key open nothing any more, within a second; what was made with it stays."""
    from service.access.making import revoke as revoked
    from service.errors import KeyNotFound

    with _store(data_dir) as (settings, jobs):
        try:
            revoked(jobs, key, _by(), settings.audit_keep_s)
        except KeyNotFound as error:
            raise failure(str(error)) from None
    terminal().print(f"{key} is revoked", markup=False)


@contextlib.contextmanager
def _store(data_dir: Path | None) -> Iterator["tuple[Settings, JobStore]"]:
    """The settings and the job store; what goes wrong becomes one red line."""
    # Here, as no other command without a service needs the database.
    from service.errors import ServiceError
    from service.jobstore import JobStore
    from service.settings import Settings

    try:
        settings = Settings.from_environment()
        settings = Settings.checked(settings.model_dump() | given(data_dir=data_dir))
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(JobStore.open(settings.database)) as jobs:
            yield settings, jobs
    except ServiceError as error:
        raise failure(str(error)) from None
    except OSError as error:
        raise failure(f"{error.filename}: {error.strerror}") from None


def _by() -> str:
    return f"command line, user {os.getuid()}"


def _limits(limits: KeyLimits) -> str:
    found = []
    if limits.running is not None:
        found.append(f"{limits.running} jobs")
    if limits.storage_bytes is not None:
        found.append(f"{limits.storage_bytes:,} bytes")
    if limits.requests_per_s is not None:
        found.append(f"{limits.requests_per_s:g} requests/s")
    return ", ".join(found)
