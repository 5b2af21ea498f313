"""The command that explains a job."""

from collections.abc import Iterator

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from api.bodies import AmountBody, ExplanationBody, LinkBody
from api.client import DEFAULT_URL
from api.connecting import JobArgument, Url, connected
from api.terminal import terminal

app = typer.Typer()
_COLOURS = {"succeeded": "green", "failed": "red", "running": "cyan"}
_GIB = 1 << 30


@app.command()
def explain(job: JobArgument, url: Url = DEFAULT_URL) -> None:
    """Say why a job waits, is slow or has failed, and what would change it."""
    with connected(url) as client:
        _print(client.job(job).explain(), terminal())


def _print(said: ExplanationBody, console: Console) -> None:
    colour = _COLOURS.get(said.state, "yellow")
    since = f"{said.since.astimezone():%Y-%m-%d %H:%M:%S}"
    console.print(
        f"[bold]{escape(said.job)}[/] [{colour}]{said.state}[/] ({said.reason}) since {since}"
    )
    console.print(said.headline, markup=False)
    console.print(f"[dim]rule[/] {said.rule.name}: {escape(said.rule.sentence)}")
    if said.resources is not None:
        console.print(_resources(said), end="")
    if said.queue is not None:
        console.print(f"[dim]queue[/] {said.queue.ahead} before it; {escape(said.queue.basis)}")
    if said.attempts:
        console.print(_attempts(said.attempts))
    if said.last_lines:
        console.print("[dim]last lines of its log[/]")
        for line in said.last_lines:
            console.print(f"  {line}", markup=False)
    if said.changes:
        console.print("[dim]what would change it[/]")
        for change in said.changes:
            console.print(f"  {change.sentence}", markup=False)
            if change.command is not None:
                console.print(f"    [bold]{escape(change.command)}[/]")
            elif change.request is not None:
                console.print(f"    {change.request.method} {change.request.path}", markup=False)


def _resources(said: ExplanationBody) -> Table:
    table = Table("resources", "cores", "GPUs", "left", box=None)
    claims = said.resources
    assert claims is not None
    asked = claims.asked
    total = AmountBody(
        cpus=asked.workers * asked.cpus_per_worker, gpus=asked.workers * asked.gpus_per_worker
    )
    amounts = {
        "asked": total,
        "free": claims.free,
        "all": claims.capacity,
        "other programs": claims.others,
    }
    for name, amount in amounts.items():
        if amount is not None:
            table.add_row(name, f"{amount.cpus:g}", f"{amount.gpus:g}", "")
    for held in claims.held:
        name = "this job" if held.job == said.job else held.job
        left = "?" if held.remaining_s is None else f"{held.remaining_s:.0f} s"
        left = "ending" if held.is_ending else left
        table.add_row(escape(name), f"{held.cpus:g}", f"{held.gpus:g}", left)
    return table


def _attempts(links: list[LinkBody]) -> Table:
    table = Table("attempt", "reason", "steps", "what happened", box=None)
    for link in links:
        first = link.resumed_from_step or 0
        steps = f"{first}-{link.last_step}" if link.last_step is not None else ""
        text = " ".join((*_happened(link), link.followed_by))
        table.add_row(str(link.attempt), link.reason or "", steps, escape(text))
    return table


def _happened(link: LinkBody) -> Iterator[str]:
    if link.message is not None:
        yield link.message
    memory = []
    if link.memory.peak_rss_bytes is not None:
        memory.append(f"at most {link.memory.peak_rss_bytes / _GIB:.2f} GiB resident")
    if link.memory.oom_kills:
        memory.append(f"{link.memory.oom_kills} process(es) ended by the kernel for memory")
    if memory:
        yield f"Memory: {', '.join(memory)}."
