from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from service.errors import (
    DatasetChanged,
    DatasetExists,
    DatasetInUse,
    DatasetNotFound,
    InvalidSpec,
)
from service.jobs import Job, JobState, Reason
from service.jobstore import JobStore
from service.studies.ledger import Study
from service.uploads import Change, Condition, Upload
from tests.contract.jobstore.making import NOON, job, queued, spec, together
from tests.contract.jobstore.test_ledger import FIRST, new_study
from workers.content import Facts

ANY = Condition()


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def upload(name: str, letter: str) -> Upload:
    facts = Facts(
        digest=digest(letter),
        shape=(28, 28),
        count=100,
        dtype="uint8",
        size_bytes=78_528,
        source_format="npz",
        source_digest=digest("e"),
    )
    return Upload(name, facts, NOON)


def pinning(letter: str, name: str = "ours") -> Job:
    return job(of=spec(dataset={"name": name, "digest": digest(letter)}))


def study_pinning(letter: str, id: str = "study-1") -> Study:
    study = new_study(id)
    return replace(study, request=study.request.model_copy(update={"spec": pinning(letter).spec}))


def seen(stored: Upload) -> Condition:
    return Condition(frozenset({stored.revision}), exists=True)


def test_a_name_comes_back_with_its_facts(store: JobStore) -> None:
    new = upload("ours", "a")
    assert store.upload("ours") is None
    assert store.put_upload(new, ANY) == (new, Change.CREATED, None)
    assert store.upload("ours") == new
    store.put_upload(upload("a-first", "b"), ANY)
    assert [known.name for known in store.uploads()] == ["a-first", "ours"]


def test_the_same_content_again_changes_nothing(store: JobStore) -> None:
    first, *_ = store.put_upload(upload("ours", "a"), ANY)
    again = store.put_upload(upload("ours", "a"), Condition(frozenset({"7-old"}), exists=True))
    assert again == (first, Change.UNCHANGED, first)


def test_a_name_moves_only_from_what_the_client_has_seen(store: JobStore) -> None:
    first, *_ = store.put_upload(upload("ours", "a"), ANY)
    with pytest.raises(DatasetExists):
        store.put_upload(upload("ours", "b"), ANY)
    moved, change, before = store.put_upload(upload("ours", "b"), seen(first))
    assert (moved.version, moved.facts.digest, change) == (2, digest("b"), Change.MOVED)
    assert before == first
    with pytest.raises(DatasetChanged):
        store.put_upload(upload("ours", "c"), seen(first))
    assert store.upload("ours") == moved
    back, *_ = store.put_upload(upload("ours", "a"), Condition(exists=True))
    # Back at the same content it is another state all the same.
    assert (back.version, back.revision == first.revision) == (3, False)


def test_preconditions_on_a_name_that_is_not_there(store: JobStore) -> None:
    for condition in (Condition(exists=True), Condition(frozenset({"1-a"}), exists=True)):
        with pytest.raises(DatasetChanged):
            store.put_upload(upload("ours", "a"), condition)
    only_new = Condition(is_new=True)
    assert store.put_upload(upload("ours", "a"), only_new)[1] is Change.CREATED
    for letter in "ab":
        with pytest.raises(DatasetChanged):
            store.put_upload(upload("ours", letter), only_new)


def test_of_racing_movers_one_wins(store: JobStore) -> None:
    first, *_ = store.put_upload(upload("ours", "a"), ANY)
    works = [partial(store.put_upload, upload("ours", letter), seen(first)) for letter in "bcdf"]
    outcomes = together(works)
    assert sum(isinstance(outcome, DatasetChanged) for outcome in outcomes) == 3
    stored = store.upload("ours")
    assert stored is not None
    assert stored.version == 2


def test_a_name_that_no_job_uses_is_forgotten(store: JobStore) -> None:
    first, *_ = store.put_upload(upload("ours", "a"), ANY)
    with pytest.raises(DatasetChanged):
        store.delete_upload("ours", Condition(frozenset({"9-x"}), exists=True))
    assert store.delete_upload("ours", seen(first)) == first
    with pytest.raises(DatasetNotFound, match="'ours'"):
        store.delete_upload("ours", ANY)


def test_a_name_whose_content_jobs_pin_is_kept_and_they_are_named(store: JobStore) -> None:
    store.put_upload(upload("ours", "a"), ANY)
    made = [store.add(pinning("a"))[0], store.add(pinning("a", "another-name"))[0]]
    queued(store)
    with pytest.raises(DatasetInUse) as refusal:
        store.delete_upload("ours", ANY)
    assert refusal.value.jobs == tuple(job.id for job in made)
    assert store.upload("ours") is not None
    # Once it has moved on, the jobs no longer use what the name points at.
    store.put_upload(upload("ours", "b"), Condition(exists=True))
    store.delete_upload("ours", ANY)
    assert store.is_content_used(digest("a"))
    assert not store.is_content_used(digest("b"))


def test_a_job_is_stored_only_while_its_content_is_kept(store: JobStore) -> None:
    with pytest.raises(InvalidSpec):
        store.add(pinning("a"), needs_content=True)
    store.put_upload(upload("ours", "a"), ANY)
    made, created = store.add(pinning("a"), needs_content=True)
    assert created
    assert store.get(made.id) == made
    # From then on the job keeps it, whatever becomes of the name.
    store.put_upload(upload("ours", "b"), Condition(exists=True))
    assert store.add(pinning("a"), needs_content=True)[1]


def test_a_study_keeps_its_content_before_it_has_any_trial(store: JobStore) -> None:
    store.put_upload(upload("ours", "a"), ANY)
    study, _ = store.studies.submit(study_pinning("a"), None, needs_content=True)
    with pytest.raises(DatasetInUse, match=r"0 job\(s\) and 1 study") as refusal:
        store.delete_upload("ours", ANY)
    assert (refusal.value.jobs, refusal.value.studies) == ((), (study.id,))
    # Also once no name points at it; and a job may pin what only the study has.
    store.put_upload(upload("ours", "b"), Condition(exists=True))
    store.delete_upload("ours", ANY)
    assert store.is_content_used(digest("a"))
    job, _ = store.add(pinning("a"), needs_content=True)
    # A study that has ended may be retried; what is deleted needs nothing.
    store.ledger.request_cancel(study.id)
    store.settle(job, JobState.CANCELLED, Reason.CANCELLED, "cancelled")
    store.delete(job.id)
    assert store.is_content_used(digest("a"))
    store.studies.delete(study.id, None)
    assert not store.is_content_used(digest("a"))
    with pytest.raises(InvalidSpec):
        store.studies.submit(study_pinning("a"), None, needs_content=True)


def test_a_trial_keeps_a_content_that_its_study_does_not_pin(store: JobStore) -> None:
    """As where the data set is what the study tunes."""
    study = store.ledger.start(store.ledger.add(new_study()), "starting")
    store.put_upload(upload("ours", "a"), ANY)
    job = replace(pinning("a"), study_id=study.id)
    deleted, added = together(
        [
            partial(store.delete_upload, "ours", ANY),
            partial(store.ledger.add_trial, study, FIRST, job, needs_content=True),
        ]
    )
    assert not isinstance(added, Exception)  # one that is too late, fails when it starts
    assert isinstance(deleted, DatasetInUse) == (store.upload("ours") is not None)


@pytest.mark.parametrize("kind", ["job", "study"])
def test_of_a_deletion_and_a_submission_at_once_one_wins(store: JobStore, kind: str) -> None:
    for number in range(5):
        name = f"ours-{number}"
        letter = "abcde"[number]
        store.put_upload(upload(name, letter), ANY)
        submit: Callable[[], object] = partial(store.add, pinning(letter, name), needs_content=True)
        if kind == "study":
            study = study_pinning(letter, f"study-{number}")
            submit = partial(store.studies.submit, study, None, needs_content=True)
        deleted, added = together([partial(store.delete_upload, name, ANY), submit])
        assert isinstance(deleted, DatasetInUse) != isinstance(added, InvalidSpec)
        assert store.is_content_used(digest(letter)) == isinstance(deleted, DatasetInUse)


def test_a_split_is_used_by_jobs_that_have_not_ended(store: JobStore) -> None:
    def splitting(letter: str, seed: int) -> Job:
        return job(of=spec(dataset={"name": "ours", "digest": digest(letter), "split_seed": seed}))

    ending = store.add(splitting("a", 7))[0]
    store.add(splitting("b", 8))
    used = [
        (letter, n) for letter in "ab" for n in (7, 8) if store.is_split_used(digest(letter), n)
    ]
    assert used == [("a", 7), ("b", 8)]
    store.settle(ending, JobState.CANCELLED, Reason.CANCELLED, "cancelled")
    assert not store.is_split_used(digest("a"), 7)
