"""What the trials of a study have measured, epoch by epoch, as far as their events are in."""

import math
from collections.abc import Mapping, Sequence

from service.jobs import JobEvent
from service.jobstore import JobStore
from service.studies.configuring import spec_of
from service.studies.health import Vigil
from service.studies.ledger import Trial
from service.studies.objective import objectives
from service.studies.request import StudyRequest
from workers.run import StudyStop
from workers.spec import DeltaVae, IcaSpec, Vae

AT_A_TIME = 1000  # events
FIRST = 1  # the event that says that the job is there
LAST = 20  # events among which the last with a result is looked for


class Readings:
    """Reads each event once. A result is what has all objectives, at the end of an epoch.

    Fits of ``ica`` have one result, the last: they are compared when they have converged, and
    their iterations are no rungs.
    """

    def __init__(self, jobs: JobStore, request: StudyRequest) -> None:
        self._jobs = jobs
        self._names = [objective.metric for _, objective in objectives(request)]
        self._is_open_ended = isinstance(request.spec, IcaSpec)
        self._read: dict[int, int] = {}
        self._results: dict[int, dict[int, Mapping[str, float]]] = {}
        self._request = request
        self._vigils: dict[int, Vigil] = {}

    def read(self, trial: Trial) -> None:
        """Take in what is new of a trial."""
        if self._request.stop_unhealthy is not None and trial.number not in self._vigils:
            trainer = spec_of(self._request.spec, trial.values).trainer
            if isinstance(trainer, DeltaVae | Vae):
                latent_dim = trainer.network.latent_dim
                self._vigils[trial.number] = Vigil(self._request.stop_unhealthy, latent_dim)
        while (read := self._read.get(trial.number, FIRST)) < trial.last_event:
            events = self._jobs.events(trial.job_id, read, AT_A_TIME, ["metrics"])
            for event in events:
                self._note(trial.number, event)
            seen = [event.seq for event in events]
            if len(events) < AT_A_TIME:
                seen.append(trial.last_event)
            self._read[trial.number] = max(seen)

    def of(self, trial: Trial) -> Mapping[int, Mapping[str, float]]:
        """The trial's results by epoch, of what was read."""
        results = self._results.get(trial.number, {})
        if not self._is_open_ended or not results:
            return results
        last = max(results)
        return {last: results[last]} if trial.ended_at is not None else {}

    def forget(self, trial: Trial) -> None:
        """Nobody asks for a trial any more; should one all the same, it is read again."""
        for known in (self._read, self._results, self._vigils):
            known.pop(trial.number, None)

    def verdict(self, trial: Trial) -> StudyStop | None:
        """Why a trial is to be stopped for its model's health, of what was read."""
        vigil = self._vigils.get(trial.number)
        return None if vigil is None else vigil.verdict

    def last_epoch(self, trial: Trial) -> int | None:
        """The epoch of the trial's last result, from its last events alone; None without one."""
        for event in self._jobs.last_events(trial.job_id, ["metrics"], LAST):
            if (found := self._result(event)) is not None:
                return found[0]
        return None

    def _note(self, number: int, event: JobEvent) -> None:
        epoch, vigil = event.data["epoch"], self._vigils.get(number)
        if vigil is not None and epoch == int(epoch):
            vigil.note(int(epoch), event.data["values"])
        found = self._result(event)
        if found is not None:
            # What an attempt that was lost had said of an epoch, is what was seen of it.
            self._results.setdefault(number, {}).setdefault(*found)

    def _result(self, event: JobEvent) -> tuple[int, Mapping[str, float]] | None:
        epoch, values = event.data["epoch"], event.data["values"]
        if epoch != int(epoch) or not epoch or any(name not in values for name in self._names):
            return None
        return int(epoch), {n: math.nan if v is None else v for n, v in values.items()}


def common(results: Sequence[Mapping[int, Mapping[str, float]]]) -> list[int]:
    """The epochs that all trials of a configuration have results of, rising."""
    return sorted(set.intersection(*(set(one) for one in results))) if results else []
