"""What the database itself writes down about leases, and about who writes what only a leader may.

Triggers record, in the writer's own transaction, the name of its connection and the lease that was
the last one then. They know nothing of the service's own fencing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from tests.postgres import PASSWORD

# Only the leader writes these while nobody retries or deletes anything.
LED_TABLES = ("attempts", "metric_series", "metric_points", "checkpoints", "artifacts")
_LEFT_S = "expires_us / 1e6 - extract(epoch FROM clock_timestamp())"
_INSTALL = f"""
CREATE SCHEMA audit;
CREATE TABLE audit.leases (at double precision, number bigint, service text, who text);
CREATE TABLE audit.writes
    (at double precision, number bigint, left_s double precision, who text, what text);
CREATE FUNCTION audit.lease() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO audit.leases VALUES (extract(epoch FROM clock_timestamp()), NEW.number,
        NEW.service, current_setting('application_name'));
    RETURN NULL;
END $$;
CREATE FUNCTION audit.write() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO audit.writes SELECT extract(epoch FROM clock_timestamp()), number,
        {_LEFT_S}, current_setting('application_name'), TG_TABLE_NAME FROM public.leadership;
    RETURN NULL;
END $$;
CREATE TRIGGER audited AFTER UPDATE ON leadership FOR EACH ROW
    WHEN (OLD.number <> NEW.number) EXECUTE FUNCTION audit.lease();
"""
_AUDITED = """
CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION audit.write();
"""


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as it was taken, or (``left_s``) as it is; ``at`` in seconds since 1970."""

    number: int
    service: str
    at: float = 0.0
    who: str = ""
    left_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Write:
    """A statement of ``who``, when lease ``number`` was the last one, with ``left_s`` to go."""

    at: float
    number: int
    left_s: float
    who: str
    what: str


def service_url(address: str) -> str:
    """The database's URL at a host and port."""
    return f"postgresql+psycopg://postgres:{PASSWORD}@{address}/postgres"


def install(engine: Engine) -> None:
    """Begin to write down, in a database that has its tables."""
    with engine.begin() as connection:
        connection.exec_driver_sql(_INSTALL)
        for table in LED_TABLES:
            connection.exec_driver_sql(_AUDITED.format(table=table))


def lease(engine: Engine) -> Lease:
    """The last lease."""
    with engine.connect() as connection:
        row = connection.exec_driver_sql(
            f"SELECT number, service, {_LEFT_S} AS left_s FROM leadership"
        ).one()
    return Lease(row.number, row.service, left_s=row.left_s)


def leases(engine: Engine) -> list[Lease]:
    """All that were taken, in their order."""
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT * FROM audit.leases ORDER BY number").all()
    return [Lease(row.number, row.service, row.at, row.who) for row in rows]


def writes(engine: Engine, after: float = 0.0) -> list[Write]:
    """What was written after a time, in order."""
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT * FROM audit.writes WHERE at > %s ORDER BY at", (after,)
        ).all()
    return [Write(row.at, row.number, row.left_s, row.who, row.what) for row in rows]


def foreign(taken: Iterable[Lease], written: Sequence[Write]) -> list[str]:
    """Writes of those who did not have the last lease then: there must be none."""
    holders = {each.number: each.who for each in taken}
    return [
        f"{write.who} wrote {write.what} when lease {write.number} was "
        f"{holders.get(write.number, 'nobody')}'s"
        for write in written
        if holders.get(write.number) != write.who
    ]
