"""The commands that remove: a job, and what nobody needs."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from api.client import DEFAULT_URL
from api.connecting import JobArgument, Url, connected
from api.terminal import failure, terminal

app = typer.Typer()


@app.command()
def delete(job: JobArgument, url: Url = DEFAULT_URL) -> None:
    """Delete a job that has ended, with all its checkpoints and files."""
    with connected(url) as client:
        client.job(job).delete()
        terminal().print(f"{job} is deleted", markup=False)


@app.command()
def sweep(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only find; remove nothing.")] = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Remove from the stores what no job, name or row refers to."""
    table = Table("what", "objects", "bytes", "name", "why", box=None)
    with connected(url) as client:
        found = client.sweep(dry_run=dry_run)
    for finding in found.findings:
        name, why = escape(finding.name), escape(finding.why)
        table.add_row(finding.kind, f"{finding.count:,}", f"{finding.size_bytes:,}", name, why)
    if found.findings:
        terminal().print(table)
    if found.state != "done":
        raise failure(f"the sweep did not come to its end: {found.error or 'it is not known why'}")
    done = "would be removed" if dry_run else "removed"
    terminal().print(f"{found.count:,} objects with {found.size_bytes:,} bytes {done}")
