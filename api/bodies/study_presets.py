"""Presets of studies, as they are answered."""

from typing import Any

from api.bodies.base import Body


class PresetBody(Body):
    """A standing question as a study."""

    name: str
    title: str
    """The question."""
    request: dict[str, Any]
    """A submission for POST /v1/studies; change what you like."""
    plots: list[list[str]]
    """Parameters of the curves that show the answer: …/curve?parameter=…&parameter=…"""
    notes: list[str]
    """What to know of it."""


class PresetSummary(Body):
    """A preset, as it stands in the list."""

    name: str
    title: str
    """The question."""
    description: str
    """How it is answered."""
    links: dict[str, str]
    """Its path; the parameter ``dataset`` is required there."""


class PresetList(Body):
    """The presets that there are."""

    presets: list[PresetSummary]
