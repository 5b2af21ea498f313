from service.jobs import JobState, Reason
from tests.trials import add_trial, running_study
from tests.unit.api.conftest import Quiet
from tests.unit.api.test_health import figures


def test_figures_count_studies_by_state_and_trials_by_outcome(quiet: Quiet) -> None:
    study = running_study(quiet.jobs)
    for number, reason in enumerate((Reason.COMPLETED, Reason.STOPPED_BY_STUDY, Reason.COMPLETED)):
        add_trial(quiet.jobs, study, number, {}, results={9: {"kid_pca": 0.1}}, reason=reason)
    add_trial(quiet.jobs, study, 3, {}, state=JobState.FAILED, reason=Reason.DIVERGED)
    add_trial(quiet.jobs, study, 4, {}, state=JobState.RUNNING)
    found = figures(quiet.http.get("/metrics").text)
    assert found[("spreadtrain_studies", frozenset({"running", "database"}))] == 1
    assert found[("spreadtrain_studies", frozenset({"failed", "database"}))] == 0
    for outcome, count in (
        *(("completed", 2), ("stopped_by_study", 1)),
        *(("diverged", 1), ("running", 1), ("paused", 0)),
    ):
        assert found[("spreadtrain_trials", frozenset({outcome, "database"}))] == count
