"""A job's events as a progress bar: loss, epoch, time to the end."""

from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from api.client import Event, JobHandle
from api.terminal import say_waiting

PATIENCE_S = 600.0  # a restart takes up to a minute, and who watches can leave with Ctrl-C


def watch_job(job: JobHandle, console: Console, patience_s: float = PATIENCE_S) -> JobHandle:
    """Follow the job to its end and say how it went; raises JobFailed unless it succeeds."""
    done = follow_job(job, console, patience_s)
    console.print(f"{done.state}: {done.body.message}", markup=False)
    return done


def follow_job(job: JobHandle, console: Console, patience_s: float = PATIENCE_S) -> JobHandle:
    """Follow the job to its end; raises JobFailed unless it succeeds. A service that does not
    answer is waited for."""
    columns = (
        TextColumn("{task.fields[state]:>9}"),
        BarColumn(),
        TextColumn("epoch {task.fields[epoch]:>6}  loss {task.fields[loss]:>9}"),
        TextColumn("{task.fields[left]:>9}"),
    )
    with Progress(*columns, console=console, transient=not console.is_terminal) as progress:
        task = progress.add_task(
            "training", total=None, state=job.state, epoch="-", loss="-", left=""
        )
        for event in job.watch(patience_s, told=say_waiting):
            _show(event, progress, task, console)
    return job.wait(patience_s=patience_s, told=say_waiting)


# Why a job does not train, and what somebody did to it.
_TOLD = (
    *("waiting_for_resources", "waiting_for_cluster", "recovering"),
    *("pausing", "paused", "resumed", "retried"),
)


_TOLD_AT_THE_END = "verdict"  # on a figure of the paper


def _show(event: Event, progress: Progress, task: TaskID, console: Console) -> None:
    data = event.data
    match event.kind:
        case "state":
            progress.update(task, state=data["state"])
            if data["reason"] in _TOLD:
                console.print(f"{data['state']}: {data['message']}", markup=False)
        case "progress":
            progress.update(
                task,
                completed=data["step"],
                total=data["total_steps"],
                epoch=f"{data['epoch']:.1f}",
                left=_time_left(data["eta_s"]),
            )
        case "metrics":
            loss = _loss(data["values"])
            if loss is not None:
                progress.update(task, loss=f"{loss:.2f}")
        case "notice" if data["code"] != _TOLD_AT_THE_END:
            console.print(f"note: {data['message']}", markup=False)
        case "gap":
            console.print("some events were lost on the way", markup=False)


def _time_left(eta_s: float | None) -> str:
    if eta_s is None:
        return ""
    minutes, seconds = divmod(round(eta_s), 60)
    return f"{minutes}:{seconds:02d} left"


def _loss(values: Mapping[str, float | None]) -> float | None:
    """The loss in nats a datum; of a fit it is the evidence's negative."""
    evidence = values.get("log_evidence_nats")
    return values.get("loss_nats") if evidence is None else -evidence
