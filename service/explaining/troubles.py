"""A part of the service that is down holds up every job: the same words for all of them."""

from service.explaining.values import Change, Facts, Finding, Rule

_READYZ = Change(
    "Look at what is down, part by part; it goes on by itself when that is back.", "readyz"
)


def trouble(facts: Facts, waiting: str) -> Finding | None:
    """What is down, and what the job does meanwhile; None where nothing is."""
    if (said := facts.troubles.get("ray")) is not None:
        return Finding(
            f"{waiting}, as Ray does not answer: {said}.",
            Rule("cluster_down", "Attempts run on Ray alone; the service starts or joins it again "
                 "every two seconds until it answers."),
            (_READYZ,),
        )  # fmt: skip
    if (said := facts.troubles.get("storage")) is not None:
        return Finding(
            f"{waiting}, as the artifact store does not answer: {said}.",
            Rule(
                "store_down",
                "Nothing is started or settled without the artifact store. An attempt that runs "
                "waits for it for a minute, and is then repeated with back-off.",
            ),
            (_READYZ,),
        )
    if (said := facts.troubles.get("leader")) is not None:
        return Finding(
            f"{waiting}, as {said}.",
            Rule("no_leader", "Of several services on one database one starts and settles all "
                 "jobs; when its lease is over, another one takes its place."),
            (_READYZ,),
        )  # fmt: skip
    if (said := facts.troubles.get("watcher")) is not None:
        return Finding(
            f"{waiting}, as the service's watcher has trouble: {said}.",
            Rule("service_trouble", "One thread starts and settles all jobs, in rounds."),
            (_READYZ, Change("If it stays so, restart the service; no job is lost with it.")),
        )
    return None
