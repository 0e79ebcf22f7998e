"""What the database's own errors mean: one table from its codes to an error of ours, without a word of its text."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    PendingRollbackError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolExhausted

from app.domain.errors import HeadgateError, Invalid, Transient

_AWAY = ("The database did not answer", "Check HEADGATE_DATABASE_URL and that the database runs.")
_BUSY = ("The database is busy", "Try again; if it stays so, see what holds its locks.")
_FULL = ("The database has no space left", "Make space on its disk; nothing has to be restarted.")
_READ_ONLY = ("The database can only be read", "See its settings, and the permissions and the mount of its files.")
_DAMAGED = ("The database is damaged", "Restore it from a backup.")
_OTHER_SCHEMA = ("The database has not the schema of this version", "Run the migrations: `headgate up` does.")
_NOT_ALLOWED = ("The database does not let us", "Give the role of HEADGATE_DATABASE_URL its rights.")

# PostgreSQL's SQLSTATE (or its class, the first two characters), and SQLite's names of its primary codes.
_CODES: Mapping[str, tuple[str, str]] = {
    "25006": _READ_ONLY,
    "40": _BUSY,
    "42501": _NOT_ALLOWED,
    "42703": _OTHER_SCHEMA,
    "42P01": _OTHER_SCHEMA,
    "53100": _FULL,
    "53300": _BUSY,
    "55P03": _BUSY,
    "XX": _DAMAGED,
    "SQLITE_BUSY": _BUSY,
    "SQLITE_CORRUPT": _DAMAGED,
    "SQLITE_FULL": _FULL,
    "SQLITE_LOCKED": _BUSY,
    "SQLITE_NOTADB": _DAMAGED,
    "SQLITE_READONLY": _READ_ONLY,
}
# A statement that is wrong, or a rule of the schema that it breaks, is a defect of ours and no trouble of the database.
_DEFECTS = (IntegrityError, NotSupportedError, ProgrammingError)


@contextmanager
def in_our_words() -> Iterator[None]:
    """Translate what the database raises inside the block.

    Raises:
        Transient: it is away, busy, full, read-only or damaged; nothing is known to be wrong with what was asked.
        Invalid: a value is larger than its column.
    """
    try:
        yield
    except DataError as error:
        raise Invalid("value", f"the database cannot hold it ({_kind(error)})") from error
    except (DBAPIError, PoolExhausted, PendingRollbackError) as error:
        if told := _translated(error):
            raise told from error
        raise


def _translated(error: Exception) -> HeadgateError | None:
    """The error in our words; None where it is a defect of ours."""
    code = _code(error)
    found = _CODES.get(code) or _CODES.get(code[:2])
    if found is None:
        if isinstance(error, _DEFECTS):
            return None
        # SQLite has one code for every wrong statement: to it a missing table is the only likely one.
        found = _OTHER_SCHEMA if code == "SQLITE_ERROR" else _AWAY
    what, remedy = found
    # The driver's text holds the statement and its values, or the server's address: only the kind of error goes on.
    return Transient(f"{what} ({_kind(error)}).", remedy)


def _code(error: Exception) -> str:
    """The code that the driver gives; empty where the connection broke before there was any."""
    cause = getattr(error, "orig", None)
    name = getattr(cause, "sqlite_errorname", None)  # SQLITE_BUSY, or an extended one such as SQLITE_BUSY_SNAPSHOT
    if isinstance(name, str):
        return "_".join(name.split("_")[:2])
    return str(getattr(cause, "sqlstate", None) or "")


def _kind(error: Exception) -> str:
    return type(getattr(error, "orig", error)).__name__
