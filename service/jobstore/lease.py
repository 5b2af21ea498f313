"""The lease of the service that leads. Each function runs in one transaction.

Times are the database's, so that services need no clocks that agree. Each lease has a number of its
own, larger than all before it.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BigInteger, ColumnElement, Connection, cast, func, literal, select, update

from service.errors import NotLeading
from service.jobstore import postgres
from service.jobstore.rows import from_us
from service.jobstore.schema import LEADERSHIP
from service.jobstore.writing import now_us

SECOND_US = 1_000_000
# For a write under way, and for the next word of who holds the row when its lease is over. Whoever
# wants to lead asks again every second.
WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Lease:
    """Who leads, or led last: ``service`` is its name, ``left_s`` what is left of its lease in
    seconds, below 0 where it is over."""

    number: int
    service: str
    expires_at: datetime
    left_s: float


def take(connection: Connection, service: str, lease_s: float) -> int | None:
    """The number of a new lease, if the last one is over or was given back; else None.

    A leader's writes hold the row until they are committed: they are waited for, but those of a
    process that says no more are ended.
    """
    now = _now(connection)
    if connection.dialect.name == "postgresql":
        postgres.wait_at_most(connection, WAIT_S)
        over_since_us = connection.execute(select(now - LEADERSHIP.c.expires_us)).scalar_one()
        if over_since_us > _us(WAIT_S):
            postgres.end_sleepers(connection, LEADERSHIP.name, WAIT_S)
    return connection.execute(
        update(LEADERSHIP)
        .where(LEADERSHIP.c.expires_us <= now)
        .values(number=LEADERSHIP.c.number + 1, service=service, expires_us=now + _us(lease_s))
        .returning(LEADERSHIP.c.number)
    ).scalar()


def renew(connection: Connection, number: int, lease_s: float) -> bool:
    """Let the lease with the number last for so long from now; False where it is over."""
    now = _now(connection)
    renewed = connection.execute(
        update(LEADERSHIP)
        .where(LEADERSHIP.c.number == number, LEADERSHIP.c.expires_us > now)
        .values(expires_us=now + _us(lease_s))
        .returning(LEADERSHIP.c.number)
    )
    return renewed.first() is not None


def give_back(connection: Connection, number: int) -> None:
    """End the lease with the number, if it is the last, so that nobody waits for its end."""
    connection.execute(update(LEADERSHIP).where(LEADERSHIP.c.number == number).values(expires_us=0))


def last(connection: Connection) -> Lease:
    """The lease that is, or was last."""
    row = connection.execute(select(LEADERSHIP, _now(connection).label("now_us"))).one()
    left_s = (row.expires_us - row.now_us) / SECOND_US
    return Lease(row.number, row.service, from_us(row.expires_us), left_s)


def require(connection: Connection, number: int | None) -> None:
    """Raise NotLeading unless the lease with the number is the last one, and not over; until the
    transaction ends nobody takes another."""
    held = select(LEADERSHIP.c.number).where(
        LEADERSHIP.c.number == number, LEADERSHIP.c.expires_us > _now(connection)
    )
    if number is None or connection.execute(held.with_for_update(read=True)).first() is None:
        raise NotLeading


def _us(seconds: float) -> int:
    return int(seconds * SECOND_US)


def _now(connection: Connection) -> ColumnElement[int]:
    if connection.dialect.name != "postgresql":
        return literal(now_us(), BigInteger)
    # Not the transaction's begin: it may have waited for the row since then.
    return cast(func.extract("epoch", func.clock_timestamp()) * SECOND_US, BigInteger)
