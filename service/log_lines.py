"""The service's own log: lines for people or JSON for machines, each with what it is about.

``about`` names what a block of work is about: a request, a job and its attempt, a study, a trace.
Every line that is logged within it, by whatever module, has these facts.
"""

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal, TextIO, assert_never

LogFormat = Literal["human", "json"]
_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,64}")  # of what comes from users, nothing else is a fact
_facts: ContextVar[Mapping[str, str]] = ContextVar("facts", default={})  # noqa: B039 - never changed


@contextmanager
def about(**facts: object) -> Iterator[None]:
    """Lines that are logged in this block, in this thread and in what it awaits, have these facts.

    One that is None is left out, and so is one that is no plain word.
    """
    told = {name: str(fact) for name, fact in facts.items() if fact is not None}
    plain = {name: fact for name, fact in told.items() if _PLAIN.fullmatch(fact)}
    token = _facts.set({**_facts.get(), **plain})
    try:
        yield
    finally:
        _facts.reset(token)


def facts() -> Mapping[str, str]:
    """What the work at hand is about."""
    return _facts.get()


class HumanLines(logging.Formatter):
    """``time level logger: message [request=… job=…]``, without facts that the message has."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """See :meth:`logging.Formatter.formatMessage`."""
        line = super().formatMessage(record)
        rest = [f"{name}={fact}" for name, fact in facts().items() if fact not in record.message]
        return f"{line} [{' '.join(rest)}]" if rest else line


class JsonLines(logging.Formatter):
    """One JSON object a line: at, level, logger, message, the facts, and exception."""

    def format(self, record: logging.LogRecord) -> str:
        """See :meth:`logging.Formatter.format`."""
        content: dict[str, str] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **facts(),
        }
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            content["stack"] = record.stack_info
        return json.dumps(content, ensure_ascii=False)


def formatter(form: LogFormat) -> logging.Formatter:
    """The formatter of a form."""
    match form:
        case "human":
            return HumanLines()
        case "json":
            return JsonLines()
        case _:
            assert_never(form)


def write_log(form: LogFormat, stream: TextIO | None = None) -> None:
    """Let this process write its log in that form; to standard error, unless a stream is given.

    Who runs the service within a program that has a log already, keeps that.
    """
    if logging.getLogger().handlers:
        return
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(formatter(form))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.captureWarnings(True)
    for chatty in ("alembic", "botocore", "ray"):  # their progress is nobody's business
        logging.getLogger(chatty).setLevel(logging.WARNING)
