"""What the drivers raise becomes an error of ours, with a remedy and without a word of the driver's."""

import sqlite3
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from app.db.session import Database
from app.db.trouble import in_our_words
from app.domain.errors import Transient

SECRET = "INSERT INTO secrets"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (psycopg.errors.ReadOnlySqlTransaction, "can only be read"),
        (psycopg.errors.DiskFull, "no space left"),
        (psycopg.errors.AdminShutdown, "did not answer"),
        (psycopg.errors.CannotConnectNow, "did not answer"),
        (psycopg.errors.ConnectionFailure, "did not answer"),
        (psycopg.errors.IdleInTransactionSessionTimeout, "did not answer"),
        (psycopg.errors.TooManyConnections, "busy"),
        (psycopg.errors.DeadlockDetected, "busy"),
        (psycopg.errors.SerializationFailure, "busy"),
        (psycopg.errors.LockNotAvailable, "busy"),
        (psycopg.errors.UndefinedTable, "not the schema"),
        (psycopg.errors.InsufficientPrivilege, "does not let us"),
        (psycopg.errors.DataCorrupted, "damaged"),
        (psycopg.OperationalError, "did not answer"),
        (psycopg.InterfaceError, "did not answer"),
    ],
)
def test_an_error_of_postgresql_is_told_in_our_words(error: type[psycopg.Error], words: str) -> None:
    with pytest.raises(Transient, match=words) as told, in_our_words():
        raise DBAPIError.instance(SECRET, None, error(SECRET), psycopg.Error)
    assert SECRET not in str(told.value)
    assert told.value.remedy


@pytest.mark.parametrize("error", [psycopg.errors.UniqueViolation, psycopg.errors.SyntaxError])
def test_a_defect_of_ours_is_not_called_trouble_of_the_database(error: type[psycopg.Error]) -> None:
    with pytest.raises(DBAPIError), in_our_words():
        raise DBAPIError.instance("", None, error(), psycopg.Error)


def test_a_file_that_is_no_database_is_damaged(tmp_path: Path) -> None:
    file = tmp_path / "headgate.db"
    file.write_bytes(b"no database at all, but long enough to be one " * 100)
    database = Database(f"sqlite:///{file}")
    with pytest.raises(Transient, match="damaged"), database.begin() as session:
        session.execute(text("SELECT 1"))
    database.close()


def test_a_database_without_tables_says_so(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'headgate.db'}")
    with pytest.raises(Transient, match="not the schema"), database.begin() as session:
        session.execute(text("SELECT * FROM promotions"))
    database.close()


def test_a_rule_of_the_schema_that_is_broken_is_a_defect(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'some.db'}")
    with engine.begin() as connection, pytest.raises(IntegrityError), in_our_words():
        connection.execute(text("CREATE TABLE a (b INTEGER PRIMARY KEY)"))
        connection.execute(text("INSERT INTO a VALUES (1), (1)"))
    engine.dispose()


def test_a_lock_that_is_not_given_in_time_is_busy(tmp_path: Path) -> None:
    file = tmp_path / "headgate.db"
    engine = create_engine(f"sqlite:///{file}", connect_args={"timeout": 0})
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(Transient, match="busy"), in_our_words(), engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE a (b INTEGER)")
    holder.close()
    engine.dispose()
