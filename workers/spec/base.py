"""What every part of a spec has in common: strictness, frozenness, the bounds of a seed."""

from pydantic import BaseModel, ConfigDict

SEED_MAX = 2**53 - 1  # the largest integer that every JSON reader keeps exactly


class SpecModel(BaseModel):
    """A frozen part of a spec: unknown keys, NaN and numbers written as strings are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )
