"""Where a database is, as its URL says: which file a service must have for itself."""

from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError


def database_file(url: str) -> Path | None:
    """The file of a SQLite database, however its URL is written; None for a database in memory,
    for a server's, and for a URL that no database can be opened at."""
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() != "sqlite":
            return None
        (name,), options = parsed.get_dialect()().create_connect_args(parsed)
    except ArgumentError:
        return None
    if options.get("uri") and name.startswith("file:"):
        uri = urlsplit(name)
        if parse_qs(uri.query).get("mode") == ["memory"]:
            return None
        name = unquote(uri.path)
    return Path(name).resolve() if name not in ("", ":memory:") else None


def is_in_memory(url: str) -> bool:
    """Whether everything in the database is lost when its process ends."""
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() != "sqlite":
            return False
        parsed.get_dialect()().create_connect_args(parsed)
    except ArgumentError:  # of no database at all; who opens it is told why
        return False
    return database_file(url) is None
