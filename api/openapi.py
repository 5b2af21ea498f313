"""Writes the OpenAPI document: ``python -m api.openapi [FILE]``, deploy/openapi.json by default."""

import json
import sys
from pathlib import Path

from api.app import describe

DEFAULT_PATH = Path("deploy/openapi.json")


def render() -> str:
    """The document as it is kept in the repository."""
    return json.dumps(describe(), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the document."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_PATH
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
