"""What a run of the fuzzing has asked and found."""

from collections import Counter
from dataclasses import dataclass, field

from schemathesis.engine import events


@dataclass
class Report:
    """What was asked, and what is wrong."""

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By phase and operation."""
    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    """By operation."""
    forms: dict[str, set[str]] = field(default_factory=dict)
    """Media types of the answers with status 200, by operation."""
    chains: int = 0
    """Chains of requests along the document's links."""
    problems: list[str] = field(default_factory=list)
    """Failed checks and errors, with the request that shows them."""
    disk_bytes: int = 0
    """The most that was kept on disk."""

    def take_in(self, event: events.ScenarioFinished) -> None:
        """Count a scenario's requests, and note what is wrong with their answers."""
        recorder = event.recorder
        self.chains += event.phase.value == "stateful" and bool(recorder.interactions)
        for case_id, node in recorder.cases.items():
            label = node.value.operation.label
            interaction = recorder.interactions.get(case_id)
            answer = None if interaction is None else interaction.response
            if answer is not None:
                self.requests[event.phase.value, label] += 1
                self.statuses.setdefault(label, Counter())[answer.status_code] += 1
                if answer.status_code == 200:
                    form = answer.headers.get("content-type", [""])[0].partition(";")[0]
                    self.forms.setdefault(label, set()).add(form)
        for case_id, checks in recorder.checks.items():
            for check in checks:
                if check.failure_info is not None:
                    failure = check.failure_info.failure
                    shown = recorder.interactions[case_id].response
                    text = shown.content[:500] if shown and shown.content else b""
                    self.problems.append(
                        f"{event.phase.value} {event.label}: {check.name}: {failure.title}\n"
                        f"{failure.message}\n{check.failure_info.code_sample[:1000]}\n"
                        f"{shown.status_code if shown else ''} {text!r}"
                    )
