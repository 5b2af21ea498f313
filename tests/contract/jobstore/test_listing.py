import base64
from itertools import product
from typing import Any

import pytest

from service.errors import InvalidQuery
from service.jobs import Job, JobFilter, JobState, Reason
from service.jobstore import JobStore
from tests.contract.jobstore.making import queued, running, spec

EVERYTHING = JobFilter()


def pages(store: JobStore, filter: JobFilter, limit: int) -> list[list[Job]]:
    cursor, found = None, []
    while True:
        page = store.list(filter, cursor, limit)
        found.append(list(page.jobs))
        cursor = page.next_cursor
        if cursor is None:
            return found


def test_the_list_is_newest_first_in_pages(store: JobStore) -> None:
    ids = [queued(store).id for _ in range(7)][::-1]
    found = [[job.id for job in page] for page in pages(store, EVERYTHING, 3)]
    assert found == [ids[:3], ids[3:6], ids[6:]]


def test_a_full_last_page_has_no_cursor(store: JobStore) -> None:
    for _ in range(4):
        queued(store)
    assert [len(page) for page in pages(store, EVERYTHING, 2)] == [2, 2]
    assert store.list(EVERYTHING, None, 4).next_cursor is None


def test_jobs_of_the_same_moment_are_each_listed_once(store: JobStore) -> None:
    ids = {queued(store, at_s=1).id for _ in range(7)}
    found = [job.id for page in pages(store, EVERYTHING, 2) for job in page]
    assert (len(found), set(found)) == (7, ids)


def test_a_cursor_is_stable_while_jobs_are_added(store: JobStore) -> None:
    ids = [queued(store).id for _ in range(4)][::-1]
    first = store.list(EVERYTHING, None, 2)
    newer = queued(store).id
    second = store.list(EVERYTHING, first.next_cursor, 2)
    assert [job.id for job in (*first.jobs, *second.jobs)] == ids
    assert store.list(EVERYTHING, None, 1).jobs[0].id == newer


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "%%%",
        "ünïcode",
        encoded(b"2:1:job"),
        encoded(b"1:now:job"),
        encoded(b"1:1:"),
        encoded(b"1:99999999999999999999:job"),
        encoded(b"\xff\xfe"),
        encoded("1:١:job".encode()),
    ],
)
def test_a_cursor_that_no_list_gave_out_is_refused(store: JobStore, cursor: str) -> None:
    with pytest.raises(InvalidQuery) as refusal:
        store.list(EVERYTHING, cursor, 10)
    assert [error.pointer for error in refusal.value.errors] == ["/query/cursor"]


STATES = (JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED)
DATASETS: dict[str, dict[str, Any]] = {
    "mnist-10k": {"name": "mnist-10k"},
    "ring": {"kind": "ring", "samples": 50},
}
LABELS: tuple[dict[str, str], ...] = ({}, {"team": "a"}, {"team": "b", "extra": ""})


@pytest.fixture
def mixed(store: JobStore) -> list[Job]:
    """One job of each combination, newest first."""
    made = []
    for state, trainer, dataset, labels in product(STATES, ("delta_vae", "vae"), DATASETS, LABELS):
        of = spec(trainer, DATASETS[dataset])
        add = queued if state is JobState.QUEUED else running
        job = add(store, of=of, labels=labels)
        if state is JobState.SUCCEEDED:
            job = store.settle(job, state, Reason.COMPLETED, "done")
        made.append(job)
    return made[::-1]


def matches(job: Job, filter: JobFilter) -> bool:
    """The slow and obvious meaning of a filter."""
    name = job.spec.data_name
    if filter.label is not None:
        key, value = filter.label
        if key not in job.labels or (value is not None and job.labels[key] != value):
            return False
    return (
        filter.state in (None, job.state)
        and filter.trainer in (None, job.spec.trainer.kind)
        and filter.dataset in (None, name)
    )


FILTERS = [
    JobFilter(*chosen)
    for chosen in product(
        (None, JobState.RUNNING, JobState.FAILED),
        (None, "vae", "no_such"),
        (None, "mnist-10k", "ring"),
        (None, ("team", None), ("team", "b"), ("extra", ""), ("team", "c")),
    )
]


def test_filters_alone_and_together_choose_what_they_say(store: JobStore, mixed: list[Job]) -> None:
    for filter in FILTERS:
        expected = [job for job in mixed if matches(job, filter)]
        assert list(store.list(filter, None, 100).jobs) == expected, filter


def test_filtered_lists_have_pages_too(store: JobStore, mixed: list[Job]) -> None:
    for filter in (JobFilter(label=("team", None)), JobFilter(trainer="vae"), FILTERS[-8]):
        expected = [job for job in mixed if matches(job, filter)]
        assert [job for page in pages(store, filter, 2) for job in page] == expected
