"""Brings a database to the schema of this version; one file in ``versions`` for each step.

A revision is written by hand and never changed once released. An empty database gets the tables of
:mod:`service.jobstore.schema` at once; a test compares all that the revisions build with these, on
both databases.
"""

import secrets
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext, MigrationStep
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, insert, inspect

from service.errors import ConfigurationError
from service.jobstore.schema import INSTALLATION, LEADERSHIP, METADATA

VERSION_TABLE = "alembic_version"


def migrate(connection: Connection) -> None:
    """Apply the revisions that the database lacks, in the caller's transaction; an empty one gets
    what they all build.

    Raises ConfigurationError for a database of a newer version, and for one of another program.
    """
    script = _script()

    def missing(current: Any, _: MigrationContext) -> Iterable[MigrationStep]:
        newest_first = list(script.iterate_revisions("head", current or "base"))
        return [
            MigrationStep.upgrade_from_script(script.revision_map, revision)
            for revision in reversed(newest_first)
        ]

    context = MigrationContext.configure(
        connection, opts={"fn": missing, "version_table": VERSION_TABLE}
    )
    current = context.get_current_revision()
    if current is None:
        _require_empty(connection)
        _build(connection)
        context.stamp(script, "head")
        return
    _require_known(script, current)
    if current != script.get_current_head():
        with Operations.context(context):
            context.run_migrations()


@cache
def _script() -> ScriptDirectory:
    """The revisions, which are loaded when they are first asked for."""
    script = ScriptDirectory(str(Path(__file__).parent))
    script.get_current_head()
    return script


def _build(connection: Connection) -> None:
    """Make the tables of this version, and the rows that revisions put into them."""
    METADATA.create_all(connection, checkfirst=False)
    connection.execute(insert(INSTALLATION).values(only=1, id=secrets.token_hex(16)))
    connection.execute(insert(LEADERSHIP).values(only=1, number=0, service="", expires_us=0))


def _require_empty(connection: Connection) -> None:
    tables = set(inspect(connection).get_table_names()) - {VERSION_TABLE}
    if tables:
        raise ConfigurationError(
            "the database belongs to another program: it has tables, but none that says which "
            "version of spreadtrain made them; give an empty or a new one"
        )


def _require_known(script: ScriptDirectory, current: str) -> None:
    known = {revision.revision for revision in script.walk_revisions()}
    if current not in known:
        raise ConfigurationError(
            f"the database has schema {current}, which a newer version of spreadtrain made; "
            f"this version knows schemas up to {script.get_current_head()}: install the newer "
            "version, or give another database"
        )
