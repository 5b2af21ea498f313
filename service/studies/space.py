"""The search space: what a study may change in its base spec, by JSON pointer.

A dimension turns u in [0, 1) into a value, so that a uniform u draws from it: ``uniform``
low + (high − low)u, ``loguniform`` low·(high/low)^u, each on the lattice low + k·``step`` where a
step is given; ``choice`` and ``grid`` take one of their values. A dimension with ``when`` exists
only where the dimensions named there have one of the values named.
"""

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    JsonValue,
    PlainValidator,
    Tag,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from workers.spec.base import SpecModel

OPTIONS_MAX, DIMENSIONS_MAX = 64, 32
_DIGITS = 12  # 0.1 + 2 · 0.1 is 0.3 in a spec

_NUMBER_MAX = 10**12
_UNIQUE: dict[str, JsonValue] = {"uniqueItems": True}


def _number(value: Any) -> Any:
    """One refusal for what is no number; a union of int and float would give one for each."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PydanticCustomError("number", "must be a number")
    if not abs(value) <= _NUMBER_MAX:
        raise PydanticCustomError("number_too_large", "must be between -1e12 and 1e12")
    return value


Number = Annotated[
    int | float,
    PlainValidator(_number),
    WithJsonSchema({"type": "number", "minimum": -_NUMBER_MAX, "maximum": _NUMBER_MAX}),
]
Pointer = Annotated[str, Field(pattern=r"^(/([^~/]|~[01])+)+$", max_length=500)]
Configuration: TypeAlias = Mapping[str, Any]


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same; true is not 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    low, high = bounds
    if low >= high:
        raise PydanticCustomError(
            "low_not_below_high", "must be [low, high] with low below high", {"low": low}
        )
    return bounds


def _positive(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] <= 0:
        raise PydanticCustomError("low_not_positive", "must begin above 0: it has no logarithm")
    return bounds


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    for index, value in enumerate(values):
        if any(same(value, other) for other in values[:index]):
            raise PydanticCustomError("repeated_value", "must not have a value twice")
    return values


Bounds = Annotated[tuple[Number, Number], Field(strict=False), AfterValidator(_ascending)]


class _Dimension(SpecModel):
    when: dict[Pointer, Annotated[tuple[JsonValue, ...], Field(strict=False, min_length=1)]] = (
        Field(default={}, max_length=DIMENSIONS_MAX)
    )
    """Where this dimension exists: for each pointer of another one, which must be a choice or a
    grid, the values that it may have. Elsewhere the base spec's value stays."""


class _Range(_Dimension):
    step: Annotated[Number, Field(gt=0)] | None = None
    """Values are low + k·step; whole numbers need whole bounds and a whole step. null: any."""

    def _on_lattice(self, low: float, high: float, k: int) -> float:
        step = self.step or 0
        value = low + min(k, self._steps(low, high)) * step
        return value if isinstance(value, int) else float(f"{value:.{_DIGITS}g}")

    def _steps(self, low: float, high: float) -> int:
        assert self.step is not None
        return math.floor((high - low) / self.step * (1 + 1e-12))


class Uniform(_Range):
    """Every value between two bounds is as likely."""

    uniform: Bounds
    """[low, high]."""

    @property
    def steps(self) -> int | None:
        """The steps from low to high, None where every value is allowed."""
        return None if self.step is None else self._steps(*self.uniform)

    def on_lattice(self, k: int) -> float:
        """low + k·step."""
        return self._on_lattice(*self.uniform, k)

    def at(self, u: float) -> float:
        """The value at u in [0, 1]."""
        low, high = self.uniform
        if self.steps is None:
            return min(low + (high - low) * float(u), float(high))
        return self.on_lattice(int(u * (self.steps + 1)))

    def options(self) -> tuple[Any, ...] | None:
        """All values, None where they are not finite in number."""
        if self.steps is None or self.steps >= 10_000:
            return None
        return tuple(self.on_lattice(k) for k in range(self.steps + 1))


class LogUniform(_Range):
    """Every order of magnitude between two bounds is as likely."""

    loguniform: Annotated[Bounds, AfterValidator(_positive)]
    """[low, high], both above 0."""

    def at(self, u: float) -> float:
        """The value at u in [0, 1]."""
        low, high = self.loguniform
        return self.nearest(float(min(max(low * (high / low) ** u, float(low)), float(high))))

    def nearest(self, value: float) -> float:
        """The value itself, or the nearest one on the lattice where there is a step."""
        low, high = self.loguniform
        if self.step is None:
            return value
        return self._on_lattice(low, high, round((value - low) / self.step))

    def options(self) -> None:
        """A range of magnitudes is never searched as a grid."""
        return


def _pick(values: tuple[Any, ...], u: float) -> Any:
    return values[min(int(u * len(values)), len(values) - 1)]


class Choice(_Dimension):
    """One of some values, which have no order."""

    choice: Annotated[
        tuple[JsonValue, ...],
        Field(strict=False, min_length=1, max_length=OPTIONS_MAX, json_schema_extra=_UNIQUE),
        AfterValidator(_distinct),
    ]
    """The values, of any type that the spec has there."""

    def at(self, u: float) -> Any:
        """The value at u in [0, 1]."""
        return _pick(self.choice, u)

    def options(self) -> tuple[Any, ...]:
        """All values."""
        return self.choice


class Grid(_Dimension):
    """One of some numbers, which have an order."""

    grid: Annotated[
        tuple[Number, ...],
        Field(strict=False, min_length=1, max_length=OPTIONS_MAX, json_schema_extra=_UNIQUE),
        AfterValidator(_distinct),
    ]
    """The numbers."""

    def at(self, u: float) -> Any:
        """The value at u in [0, 1]."""
        return _pick(self.grid, u)

    def options(self) -> tuple[Any, ...]:
        """All values."""
        return self.grid


FORMS = ("uniform", "loguniform", "choice", "grid")
# A union's tags are the names of its models, by which an error's schema is found.
_TAGS = dict(zip(FORMS, ("Uniform", "LogUniform", "Choice", "Grid"), strict=True))


def _form(value: Any) -> str | None:
    named = [
        form
        for form in FORMS
        if (form in value if isinstance(value, dict) else hasattr(value, form))
    ]
    return named[0] if len(named) == 1 else None


def _tag(value: Any) -> str | None:
    form = _form(value)
    return None if form is None else _TAGS[form]


AnyDimension = Uniform | LogUniform | Choice | Grid
Dimension = Annotated[
    Annotated[Uniform, Tag("Uniform")]
    | Annotated[LogUniform, Tag("LogUniform")]
    | Annotated[Choice, Tag("Choice")]
    | Annotated[Grid, Tag("Grid")],
    Discriminator(
        _tag,
        custom_error_type="dimension_form",
        custom_error_message="must have exactly one of: " + ", ".join(FORMS),
    ),
]
Space = Annotated[dict[Pointer, Dimension], Field(min_length=1, max_length=DIMENSIONS_MAX)]


def form_of(dimension: AnyDimension) -> str:
    """The key that says what a dimension is."""
    return _form(dimension) or ""


def is_active(dimension: AnyDimension, configuration: Configuration) -> bool:
    """Whether a dimension exists beside these values of the dimensions before it."""
    return all(
        pointer in configuration and any(same(configuration[pointer], value) for value in allowed)
        for pointer, allowed in dimension.when.items()
    )


def in_order(space: Mapping[str, AnyDimension]) -> tuple[str, ...]:
    """The pointers, each after those that its ``when`` names; raises ValueError for a circle."""
    done: list[str] = []
    left = list(space)
    while left:
        ready = [p for p in left if all(q in done or q not in space for q in space[p].when)]
        if not ready:
            raise ValueError(left[0])
        done.extend(ready)
        left = [pointer for pointer in left if pointer not in ready]
    return tuple(done)
