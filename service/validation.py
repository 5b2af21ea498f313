"""Pydantic's messages in our words, wherever a value is refused."""

import re
from collections.abc import Mapping
from typing import Any

_LENGTHS = re.compile(r"^\w+ should have (at (?:least|most) \d+ items?) after validation.*$")


def plain_message(problem: Mapping[str, Any]) -> str:
    """Pydantic's message as the end of a sentence about the field."""
    message = str(problem["msg"]).removeprefix("Value error, ")
    for opening, ours in (
        ("Input should be", "must be"),
        ("String should", "must"),
        ("Extra inputs are not permitted", "is not known here"),
        ("Field required", "is required"),
    ):
        message = message.replace(opening, ours)
    message = _LENGTHS.sub(r"must have \1", message)
    if "unicode string" in message:
        return "must be valid Unicode"
    return "must be an object" if problem["type"].startswith("model_") else message
