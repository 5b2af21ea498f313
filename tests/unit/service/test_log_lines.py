import io
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from service.log_lines import HumanLines, JsonLines, about, write_log

log = logging.getLogger("a.module")


def written(formatter: logging.Formatter, level: int, message: str, *values: object) -> str:
    record = log.makeRecord(log.name, level, __file__, 1, message, values, None)
    return formatter.format(record)


def test_a_json_line_has_what_it_is_about() -> None:
    with about(request="r-1"), about(job="job-1", attempt=2, study=None):
        line = json.loads(written(JsonLines(), logging.WARNING, "lost %d times", 3))
    assert line.pop("at").endswith("+00:00")
    assert line == {
        "level": "warning",
        "logger": "a.module",
        "message": "lost 3 times",
        "request": "r-1",
        "job": "job-1",
        "attempt": "2",
    }
    assert "job" not in json.loads(written(JsonLines(), logging.INFO, "later"))


def test_a_line_for_people_does_not_say_things_twice() -> None:
    with about(job="job-1", attempt=2):
        line = written(HumanLines(), logging.INFO, "job-1 begins")
    assert line.endswith("INFO a.module: job-1 begins [attempt=2]")
    assert written(HumanLines(), logging.INFO, "plain").endswith("a.module: plain")


@pytest.mark.parametrize("given", ["a\nb", "a b", '"', "", "x" * 65, "é"])
def test_free_text_of_a_client_is_no_fact(given: str) -> None:
    with about(job=given, request="r"):
        assert "job" not in json.loads(written(JsonLines(), logging.INFO, "x"))
        assert written(HumanLines(), logging.INFO, "x").endswith("x [request=r]")


def test_an_exception_stays_on_its_line() -> None:
    error = ValueError("two\nlines")
    told = (ValueError, error, None)
    record = log.makeRecord(log.name, logging.ERROR, "f", 1, "failed", (), told)
    text = JsonLines().format(record)
    assert "\n" not in text
    assert "ValueError: two\nlines" in json.loads(text)["exception"]


def test_what_a_thread_is_about_is_its_own() -> None:
    found: list[str] = []
    with about(job="job-1"):
        thread = threading.Thread(
            target=lambda: found.append(written(JsonLines(), logging.INFO, "elsewhere"))
        )
        thread.start()
        thread.join()
    assert "job" not in json.loads(found[0])


@contextmanager
def without_handlers() -> Iterator[logging.Logger]:
    """The root logger as a new process has it; afterwards as it was."""
    found = logging.getLogger()
    handlers, level = found.handlers[:], found.level
    found.handlers.clear()
    try:
        yield found
    finally:
        found.handlers[:] = handlers
        found.setLevel(level)
        logging.captureWarnings(False)


def test_the_whole_process_writes_in_the_form_of_the_settings() -> None:
    stream = io.StringIO()
    with without_handlers() as root:
        write_log("json", stream)
        # Not one that another test may have set up, as servers do with uvicorn's.
        logging.getLogger("some.library").info("from a library")
        logging.getLogger("alembic.runtime").info("its progress is left out")
        write_log("human", stream)  # within a program that has a log
        assert len(root.handlers) == 1
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["message"] for line in lines] == ["from a library"]
