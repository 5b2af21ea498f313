"""What the service asks again and again, is found by an index that holds little else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, event

from service.jobs import FINAL_STATES
from service.jobstore import JobStore, reading, retaining

_FOR_EVER = dict.fromkeys(FINAL_STATES)
_OWN = "COVERING INDEX jobs_by_own_end (deleted_us=? AND state=? AND study_id=?)"
_INSTALLATIONS = "INDEX jobs_by_end (deleted_us=? AND state=? AND study_id=? AND ended_us<?)"


@pytest.mark.parametrize(
    ("ask", "indexes"),
    [
        (reading.queued_with_wishes, {"INDEX jobs_by_wish (state=?)"}),
        (lambda connection: retaining.expired(connection, _FOR_EVER, 9), {_OWN}),
        (
            lambda connection: retaining.expired(connection, dict.fromkeys(FINAL_STATES, 60.0), 9),
            {_OWN, _INSTALLATIONS},
        ),
    ],
    ids=["queued with wishes", "over by their own time", "over by the installation's"],
)
def test_jobs_are_found_without_a_look_at_the_others(
    ask: Callable[[Connection], object], indexes: set[str], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    JobStore.open(url).close()
    engine = create_engine(url)
    asked: list[tuple[str, Any]] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        asked.append((statement, values))

    with engine.connect() as connection:
        ask(connection)
        plans = {
            step
            for statement, values in tuple(asked)
            for *_, step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
        }
    engine.dispose()
    assert plans == {f"SEARCH jobs USING {index}" for index in indexes}
