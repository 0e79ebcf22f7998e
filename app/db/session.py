"""Connections and transactions, the same for SQLite (WAL) and PostgreSQL."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DataError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolExhausted
from sqlalchemy.orm import Session

from app import failpoints
from app.domain.errors import Invalid, Transient

BUSY_TIMEOUT_S = 15
_LAST = "last"


class Database:
    """Opens transactions. `begin` is for writing, `read` for reading only; both commit or roll back as a whole."""

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        snapshot = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        sqlite = self.engine.dialect.name == "sqlite"
        self._reader = self.engine.execution_options(**({"headgate_read": True} if sqlite else snapshot))
        # SQLite lets its writers find out by themselves whose turn it is, by sleeping and trying again: threads of one
        # process that queue here wait for each other without sleeping past their turn.
        self._turn = threading.Lock() if sqlite else contextlib.nullcontext()

    def begin(self) -> AbstractContextManager[Session]:
        """A writing transaction; committed when the block ends without an error.

        Raises:
            Transient: the database is away or too busy.
            Invalid: a value is larger than its column.
        """
        return self._writing(failpoints.caller())

    @contextmanager
    def _writing(self, caller: str) -> Iterator[Session]:
        with self._turn, self._session(self.engine) as session:
            yield session
            at_last(session, lambda: failpoints.reach(f"commit.{caller}.before"))
        failpoints.reach(f"commit.{caller}.after")

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that only reads, all of it at one moment: on SQLite it does not wait for a writer either."""
        with self._session(self._reader) as session:
            yield session

    @contextmanager
    def _session(self, engine: Engine) -> Iterator[Session]:
        try:
            with Session(engine, expire_on_commit=False) as session, session.begin():
                yield session
                for act in session.info.pop(_LAST, ()):
                    act()
        except (OperationalError, InterfaceError, PoolExhausted) as error:
            # The driver's text holds the statement and its values, so only the kind of error is passed on.
            raise Transient(
                f"The database did not answer ({type(getattr(error, 'orig', error)).__name__}).",
                "Check HEADGATE_DATABASE_URL and that the database runs.",
            ) from error
        except DataError as error:
            raise Invalid("value", f"the database cannot hold it ({type(error.orig).__name__})") from error

    def close(self) -> None:
        self.engine.dispose()


def insert_or_ignore(session: Session, row: object) -> bool:
    """Insert a row; False where a unique constraint says that somebody was faster. The transaction goes on."""
    try:
        with session.begin_nested():
            session.add(row)
            session.flush()
    except IntegrityError:
        return False
    return True


def at_last(session: Session, act: Callable[[], None]) -> None:
    """Have `act` run when all else in the transaction is done, just before it is committed."""
    session.info.setdefault(_LAST, []).append(act)


def now(session: Session) -> datetime:
    """The database's clock, UTC: the one clock that all workers share. Read once for each transaction."""
    if "now" not in session.info:
        session.info["now"] = _clock(session)
    moment: datetime = session.info["now"]
    return moment


def _clock(session: Session) -> datetime:
    if session.get_bind().dialect.name == "sqlite":
        stamp = session.execute(text("SELECT strftime('%Y-%m-%dT%H:%M:%f', 'now')")).scalar_one()
        return datetime.fromisoformat(stamp).replace(tzinfo=UTC)
    moment: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
    return moment.astimezone(UTC)


def _engine(url: str) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=10, hide_parameters=True)
    connect = {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
    engine = create_engine(url, connect_args=connect, hide_parameters=True)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver must not open transactions by itself: we choose BEGIN IMMEDIATE or BEGIN below.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A writer that starts with a plain BEGIN can fail at its first write without waiting; IMMEDIATE waits its turn.
    reads = connection.get_execution_options().get("headgate_read", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
