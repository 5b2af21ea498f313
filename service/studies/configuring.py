"""From a space to configurations, and from a configuration to the spec of a trial."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import islice
from random import Random
from typing import TYPE_CHECKING, Any, assert_never

from pydantic import ValidationError

from service.studies.pointers import Document, encloses, escaped, parent_of, put, remove
from service.studies.request import GridSearch, RandomSearch
from service.studies.space import AnyDimension, Configuration, in_order, is_active
from workers.spec import JOB_SPEC

if TYPE_CHECKING:  # a study's driver imports this, and does without torch
    from workers.kinds import AnySpec


def draw(space: Mapping[str, AnyDimension], uniform: Callable[[], float]) -> dict[str, Any]:
    """One configuration; ``uniform`` gives independent draws from [0, 1).

    One is taken for every dimension, also where it does not exist, so that the draws of the
    others do not depend on that.
    """
    configuration: dict[str, Any] = {}
    for pointer in in_order(space):
        u = uniform()
        if is_active(space[pointer], configuration):
            configuration[pointer] = space[pointer].at(u)
    return configuration


def grid(space: Mapping[str, AnyDimension]) -> Iterator[dict[str, Any]]:
    """Every configuration once, the last dimension fastest; all dimensions must be finite."""
    return _grid(space, in_order(space), {})


def _grid(
    space: Mapping[str, AnyDimension], left: Sequence[str], chosen: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    if not left:
        yield chosen
        return
    pointer, *rest = left
    if not is_active(space[pointer], chosen):
        yield from _grid(space, rest, chosen)
        return
    options = space[pointer].options()
    assert options is not None
    for value in options:
        yield from _grid(space, rest, {**chosen, pointer: value})


def numbered(
    space: Mapping[str, AnyDimension], search: RandomSearch | GridSearch, seed: int, number: int
) -> dict[str, Any] | None:
    """The configuration of a number, a function of that alone; None beyond the end of a grid.

    So a study that is extended has the configurations that one longer study has.
    """
    match search:
        case RandomSearch():
            return draw(space, Random(f"{seed}/{number}").random)
        case GridSearch():
            return next(islice(grid(space), number, None), None)
        case _:
            assert_never(search)


def spec_of(base: "AnySpec", configuration: Configuration, seed: int | None = None) -> "AnySpec":
    """The base spec with the configuration's values in it.

    Where a ``kind`` is tuned, fields of the base's kind that the new one does not know are left
    out. Raises NoSuchPlace, and ValidationError for values that do not fit.
    """
    document: Document = base.model_dump(mode="json")
    # What encloses others comes first: an object, then what is within it.
    for pointer in sorted(configuration, key=lambda at: (at.count("/"), at)):
        put(document, pointer, deepcopy(configuration[pointer]))  # fields go into it
    if seed is not None:
        document["seed"] = seed
    while True:
        try:
            return JOB_SPEC.validate_python(document)
        except ValidationError as error:
            stale = _stale(error, document, configuration)
            if not stale:
                raise
            for keys in stale:
                remove(document, keys)


def _stale(
    error: ValidationError, document: Document, configuration: Configuration
) -> list[tuple[str | int, ...]]:
    """The unknown keys that stand there only because the base had another kind."""
    found = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        if problem["type"] != "extra_forbidden":
            continue
        keys = place_of(problem["loc"], document)
        pointer = "".join(f"/{escaped(str(key))}" for key in keys)
        is_tuned = any(encloses(pointer, tuned) for tuned in configuration)
        if f"{parent_of(pointer)}/kind" in configuration and not is_tuned:
            found.append(keys)
    return found


def place_of(location: Sequence[str | int], document: Document) -> tuple[str | int, ...]:
    """The keys of pydantic's location, without the names of a union's branches."""
    keys: list[str | int] = []
    place: Any = document
    for part in location:
        match place:
            case dict() if part in place:
                place = place[part]
            case list() if isinstance(part, int) and part < len(place):
                place = place[part]
            case _:
                continue
        keys.append(part)
    return tuple(keys)
