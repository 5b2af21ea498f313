"""What every body shares."""

from pydantic import BaseModel, ConfigDict


class Body(BaseModel):
    """A part of an answer; a reader ignores what it does not know."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)
