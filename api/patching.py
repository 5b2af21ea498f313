"""JSON merge patches (RFC 7396)."""

from typing import Any

DEPTH_MAX = 32  # no spec is deeper


class TooDeep(ValueError):
    """The patch is nested too deeply."""


def merged(target: Any, patch: Any, depth: int = 0) -> Any:
    """The target with the patch applied: objects are merged, null removes, all else replaces.

    Raises TooDeep.
    """
    if not isinstance(patch, dict):
        return patch
    if depth > DEPTH_MAX:
        raise TooDeep
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value, depth + 1)
    return result
