"""Keys, the record of who did what, and limits, on every database."""

from dataclasses import replace
from functools import partial

import pytest

from service.access.audit import Deed
from service.access.caller import ANYBODY, Caller, Quota
from service.access.keys import KeyLimits, Scope
from service.errors import KeyNotFound, NotYours, ServiceError, StorageLimit, TooManyJobs
from service.jobs import Job, JobState, Reason
from service.jobstore import JobStore
from service.jobstore.audit import PRUNED_EVERY
from service.uploads import Condition, Upload
from tests.contract.jobstore import making
from tests.contract.jobstore.test_datasets import ANY, upload
from tests.contract.jobstore.test_ledger import new_study

A_YEAR_S = 31_536_000
MATCHING = Condition(exists=True)
ANA = Caller("ana", "9f86", Scope.WRITE)


def deed(number: int = 0, owner: str = "ana") -> Deed:
    return Deed(owner, "9f86", "POST", f"/v1/jobs/{number}", "request", "10.0.0.7")


def test_a_key_is_kept_as_it_was_made_until_it_is_revoked(store: JobStore) -> None:
    limited = KeyLimits(running=2, storage_bytes=10**12, requests_per_s=0.5)
    first, second = making.key("ana", limited), making.key("ben", scope=Scope.ADMIN)
    for one in (first, second):
        store.keys.add(one)
    assert store.keys.all() == [first, second]
    revoked = store.keys.revoke(first.id)
    assert revoked.revoked_at is not None
    assert store.keys.revoke(first.id) == revoked  # asked twice
    assert store.keys.all() == [revoked, second]
    with pytest.raises(KeyNotFound):
        store.keys.revoke("none")


def test_an_entry_of_the_audit_gets_its_answer_once_and_never_changes(store: JobStore) -> None:
    first = store.audit.begin(deed(1), A_YEAR_S, 100)
    second = store.audit.begin(deed(2, "ben"), A_YEAR_S, 100)
    store.audit.end(first, 201, "/v1/jobs/job-1")
    store.audit.end(first, 500, None)
    newest, oldest = store.audit.page(None, None, 10).entries
    assert (newest.deed, newest.status, newest.made) == (deed(2, "ben"), None, None)
    assert (oldest.deed, oldest.status, oldest.made) == (deed(1), 201, "/v1/jobs/job-1")
    assert [entry.seq for entry in store.audit.page("ben", None, 10).entries] == [second]


def test_the_audit_is_read_page_by_page(store: JobStore) -> None:
    numbers = [store.audit.begin(deed(k), A_YEAR_S, 100) for k in range(5)]
    found, before = [], None
    while True:
        page = store.audit.page(None, before, 2)
        found += [entry.seq for entry in page.entries]
        if (before := page.next_before) is None:
            break
    assert found == numbers[::-1]


def test_of_the_audit_only_the_oldest_go(store: JobStore) -> None:
    for number in range(PRUNED_EVERY):
        last = store.audit.begin(deed(number), A_YEAR_S, 10)
    assert [e.seq for e in store.audit.page(None, None, 20).entries] == list(
        range(last, last - 10, -1)
    )


def waiting(owner: str = "ana", reserved_bytes: int = 0) -> Job:
    return making.job(owner=owner, reserved_bytes=reserved_bytes)


def test_jobs_beyond_the_limit_are_not_stored_and_those_of_others_do_not_count(
    store: JobStore,
) -> None:
    two = Quota("ana", 2, None)
    store.add(waiting("ben"))
    for _ in range(2):
        store.add(waiting(), quota=two)
    refused = waiting()
    with pytest.raises(TooManyJobs, match=r"ana may have 2 .*would have 3"):
        store.add(refused, quota=two)
    assert refused.id not in [job.id for job in store.startable()]


def test_what_has_ended_or_is_paused_leaves_room_and_takes_it_again(store: JobStore) -> None:
    one = Quota("ana", 1, None)
    paused, _ = store.add(waiting(), quota=one)
    store.request_pause(paused.id)
    other, _ = store.add(waiting(), quota=one)
    with pytest.raises(TooManyJobs):
        store.resume(paused.id, one)
    assert store.get(paused.id).state is JobState.PAUSED
    store.settle(other, JobState.FAILED, Reason.DIVERGED, "the loss is NaN")
    assert store.resume(paused.id, one).state is JobState.QUEUED
    with pytest.raises(TooManyJobs):
        store.retry(other.id, None, one)
    assert store.get(other.id).state is JobState.FAILED


def test_a_study_counts_as_the_trials_that_it_runs_at_one_time(store: JobStore) -> None:
    wide = replace(new_study(), owner="ana", reserved_bytes=100)
    runs = wide.request.concurrency
    with pytest.raises(TooManyJobs):
        store.studies.submit(wide, None, Quota("ana", runs - 1, None))
    with pytest.raises(StorageLimit):
        store.studies.submit(wide, None, Quota("ana", runs, 99))
    store.studies.submit(wide, None, Quota("ana", runs, 100))
    with pytest.raises(TooManyJobs):
        store.add(waiting(), quota=Quota("ana", runs, None))


def test_storage_counts_what_jobs_may_need_and_uploads_have_until_they_are_deleted(
    store: JobStore,
) -> None:
    thousand = Quota("ana", None, 1000)
    store.keys.add(making.key("ana"))
    job, _ = store.add(waiting(reserved_bytes=900), quota=thousand)
    with pytest.raises(StorageLimit, match=r"1,000 bytes of storage and would use 1,001"):
        store.add(waiting(reserved_bytes=101), quota=thousand)
    large: Upload = replace(upload("ours", "a"), owner="ana")
    assert large.facts.size_bytes > 0
    bound = replace(ANA, limits=KeyLimits(storage_bytes=900 + large.facts.size_bytes - 1))
    with pytest.raises(StorageLimit):
        store.put_upload(large, ANY, bound)
    assert store.upload("ours") is None
    store.settle(job, JobState.CANCELLED, Reason.CANCELLED, "cancelled")
    store.delete(job.id)
    store.put_upload(large, ANY, bound)


def test_of_two_at_once_who_would_break_the_limit_together_one_is_refused(
    store: JobStore,
) -> None:
    store.keys.add(making.key("ana"))
    one = Quota("ana", 1, None)

    def submit() -> str:
        try:
            return store.add(waiting(), quota=one)[0].id
        except TooManyJobs:
            return ""

    for _ in range(5):
        made = [job_id for job_id in making.together([submit] * 4) if job_id]
        assert len(made) == 1
        job = store.get(made[0])
        store.settle(job, JobState.CANCELLED, Reason.CANCELLED, "cancelled")


def test_the_name_of_a_data_set_is_moved_and_deleted_by_its_owner_and_by_admins(
    store: JobStore,
) -> None:
    store.put_upload(replace(upload("ours", "a"), owner="ana"), ANY, ANA)
    stranger, admin = replace(ANA, owner="ben"), replace(ANA, owner="carl", scope=Scope.ADMIN)
    other = upload("ours", "b")
    for caller in (stranger, replace(ANA, scope=Scope.READ)):
        with pytest.raises(NotYours):
            store.put_upload(replace(other, owner="ben"), MATCHING, caller)
        with pytest.raises(NotYours):
            store.delete_upload("ours", ANY, caller)
    moved, _, _ = store.put_upload(replace(other, owner="carl"), MATCHING, admin)
    assert moved.owner == "ana"  # whoever moves it
    store.delete_upload("ours", ANY, ANA)


def test_what_nobody_owns_is_changed_by_admins_alone(store: JobStore) -> None:
    store.put_upload(upload("ours", "a"), ANY)
    with pytest.raises(ServiceError, match="belongs to nobody"):
        store.delete_upload("ours", ANY, ANA)
    store.delete_upload("ours", ANY, ANYBODY)


def test_two_services_on_one_database_hold_to_one_limit(postgres_url: str) -> None:
    services = [JobStore.open(postgres_url) for _ in range(2)]
    services[0].keys.add(making.key("ana"))
    one = Quota("ana", 1, None)

    def submit(store: JobStore) -> bool:
        try:
            return store.add(waiting(), quota=one)[1]
        except TooManyJobs:
            return False

    made = making.together([partial(submit, store) for store in services] * 3)
    assert sum(made) == 1
    for store in services:
        store.close()
