"""The command line, in a process that was forked (``tests.nursery``)."""

from typing import Any

import api.main  # noqa: F401  # what ``serve`` imports when it is called
from api.cli import app


def begin(how: dict[str, Any]) -> None:
    app(how["words"])
