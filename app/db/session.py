"""Connections and transactions, the same for SQLite (WAL) and PostgreSQL."""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, Dialect, Engine, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from app import failpoints
from app.db.trouble import in_our_words

BUSY_TIMEOUT_S = 15
_PATIENT = f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}"
_PAUSE_S = 0.0002
_BELIEVED_S = 1.0
_LAST, _BEGUN, _USED = "last", "begun", "used"
# A server that went away without a word is found out after this long, not after TCP's quarter of an hour. A process
# that was stopped in the middle of a transaction must not hold its locks for as long as it is stopped.
_POSTGRESQL = {"connect_timeout": 10, "tcp_user_timeout": 15_000, "keepalives_idle": 10, "keepalives_interval": 5}
_POSTGRESQL_SESSION = f"SET lock_timeout = '{BUSY_TIMEOUT_S}s'; SET idle_in_transaction_session_timeout = '30s'"
Row = TypeVar("Row")


class Database:
    """Opens transactions. `begin` is for writing, `read` for reading only; both commit or roll back as a whole."""

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        self._reader = self.engine.execution_options(headgate_read=True)
        # SQLite lets its writers find out by themselves whose turn it is, by trying again: threads of one process that
        # queue here wait for each other without sleeping past their turn.
        self._turn = threading.Lock() if self.engine.dialect.name == "sqlite" else contextlib.nullcontext()

    def begin(self) -> AbstractContextManager[Session]:
        """A writing transaction; committed when the block ends without an error.

        Raises:
            Transient: the database is away, too busy, full or read-only. Where its answer to the COMMIT was lost, the
                transaction may have been recorded all the same.
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
        with in_our_words(), Session(engine, expire_on_commit=False) as session, session.begin():
            yield session
            for act in session.info.pop(_LAST, ()):
                act()

    def close(self) -> None:
        self.engine.dispose()


def insert_or_ignore(session: Session, table: type[Row], values: Mapping[str, Any]) -> Row | None:
    """Insert a row and return it; None where a unique constraint says that somebody was faster. The transaction goes
    on."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    return session.scalars(insert(table).values(values).on_conflict_do_nothing().returning(table)).one_or_none()


def at_last(session: Session, act: Callable[[], None]) -> None:
    """Have `act` run when all else in the transaction is done, just before it is committed."""
    session.info.setdefault(_LAST, []).append(act)


def now(session: Session) -> datetime:
    """The database's clock, UTC: the one clock that all workers share. Read once for each transaction."""
    if "now" not in session.info:
        connection = session.connection()
        # A writing transaction on PostgreSQL has brought the time with it.
        session.info["now"] = connection.info.get(_BEGUN) or _clock(connection)
    moment: datetime = session.info["now"]
    return moment


def _clock(connection: Connection) -> datetime:
    if connection.dialect.name == "sqlite":
        stamp = connection.exec_driver_sql("SELECT strftime('%Y-%m-%dT%H:%M:%f', 'now')").scalar_one()
        return datetime.fromisoformat(stamp).replace(tzinfo=UTC)
    moment: datetime = connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
    return moment.astimezone(UTC)


def _engine(url: str) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        # The connection that was used last is used next, so that few of them have to prove that they still live.
        pool = {"pool_use_lifo": True, "pool_size": 10, "max_overflow": 10}
        engine = create_engine(url, **pool, connect_args=_POSTGRESQL, hide_parameters=True)
        event.listen(engine, "connect", _prepare_postgresql)
        event.listen(engine, "checkin", _remember_use)
        event.listen(engine, "checkout", partial(_prove_alive, engine.dialect))
        event.listen(engine, "begin", _begin_postgresql)
        return engine
    connect = {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
    engine = create_engine(url, connect_args=connect, hide_parameters=True)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_postgresql(connection: Any, record: ConnectionPoolEntry) -> None:
    # The driver must not open transactions by itself: that would take a round trip of its own.
    connection.autocommit = True
    # Not as a start-up option: a pooler in front of PostgreSQL would refuse those.
    connection.execute(_POSTGRESQL_SESSION)
    _remember_use(connection, record)


def _begin_postgresql(connection: Connection) -> None:
    if connection.get_execution_options().get("headgate_read", False):
        connection.info.pop(_BEGUN, None)
        connection.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    else:
        begun = connection.exec_driver_sql("SELECT clock_timestamp(); BEGIN", execution_options={"no_parameters": True})
        connection.info[_BEGUN] = begun.scalar_one().astimezone(UTC)


def _remember_use(_connection: object, record: ConnectionPoolEntry) -> None:
    record.info[_USED] = time.monotonic()


def _prove_alive(dialect: Dialect, connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
    """Ask a connection that lay idle whether it still lives; the pool replaces one that does not. One that was used a
    moment ago is believed: asking costs a round trip, and what breaks now could as well break after the answer."""
    if time.monotonic() - record.info[_USED] < _BELIEVED_S:
        return
    try:
        dialect.do_ping(connection)
    except dialect.loaded_dbapi.Error as error:
        raise InvalidatePoolError from error


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver must not open transactions by itself: we choose BEGIN IMMEDIATE or BEGIN below.
    connection.isolation_level = None
    _keep_a_log(connection)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(_PATIENT)
    connection.execute("PRAGMA foreign_keys = ON")


def _keep_a_log(driver: sqlite3.Connection) -> None:
    """Write-ahead logging, which the file remembers. Only the first connection of all changes the mode, and SQLite does
    not wait with that for others who open the new file in the same moment: it says at once that they are there."""
    end = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            driver.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() > end:
                raise
            time.sleep(_PAUSE_S)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    if connection.get_execution_options().get("headgate_read", False):
        connection.exec_driver_sql("BEGIN")
    else:
        _take_turn(connection)


def _take_turn(connection: Connection) -> None:
    """Begin to write once no other process does. A writer that starts with a plain BEGIN can fail at its first write
    without waiting; and SQLite's own pauses between its tries grow to a tenth of a second, in which others come and go
    and a webhook waits: ours stay short."""
    driver, end = connection.connection.driver_connection, time.monotonic() + BUSY_TIMEOUT_S
    assert isinstance(driver, sqlite3.Connection)
    driver.execute("PRAGMA busy_timeout = 0")
    try:
        while _is_taken(driver) and time.monotonic() < end:
            time.sleep(_PAUSE_S)
        if not driver.in_transaction:
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # so that what is wrong is said in SQLAlchemy's words
    finally:
        driver.execute(_PATIENT)


def _is_taken(driver: sqlite3.Connection) -> bool:
    """Begin to write; True where somebody else does."""
    try:
        driver.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        return _is_busy(error)
    return False


def _is_busy(error: sqlite3.Error) -> bool:
    """Whether somebody else is in the way: plainly, or (in the code's upper bytes) because he is recovering the log."""
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
