from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event

from service.jobs import JobFilter, JobState
from service.jobstore import JobStore
from service.jobstore.listing import page


@pytest.mark.parametrize(
    "filter",
    [
        JobFilter(),
        JobFilter(state=JobState.FAILED),
        JobFilter(trainer="vae"),
        JobFilter(trainer="vae", state=JobState.FAILED),
        JobFilter(dataset="ring"),
        JobFilter(study="study-1"),
        JobFilter(label=("team", "a")),
        JobFilter(label=("team", None)),
        JobFilter(label=("team", "a"), state=JobState.FAILED),
    ],
    ids=str,
)
def test_an_index_has_the_order_of_each_list(filter: JobFilter, tmp_path: Path) -> None:
    """Only the page itself is sorted: else all jobs would be, for each list."""
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    JobStore.open(url).close()
    engine = create_engine(url)
    asked: list[tuple[str, Any]] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        asked.append((statement, values))

    with engine.connect() as connection:
        page(connection, filter, None, 50)
        ((statement, values),) = asked
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
    engine.dispose()
    steps = [step for *_, step in plan]
    inner = steps[: steps.index("SCAN anon_1")]
    assert not [step for step in inner if "TEMP B-TREE" in step], steps
    assert [step for step in inner if step.startswith("SEARCH")], steps
