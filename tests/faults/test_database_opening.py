"""Processes that open a new SQLite file in the same moment all succeed."""

import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from app.db.session import Database

OPENED_AT_ONCE = 4
FILES = 60  # with the defect, one in ten of them was refused to somebody


@pytest.mark.on("sqlite")
def test_a_new_file_that_many_open_at_once_is_opened_by_all(tmp_path: Path) -> None:
    refused: list[Exception] = []
    for number in range(FILES):
        together = threading.Barrier(OPENED_AT_ONCE)
        url = f"sqlite:///{tmp_path / str(number)}.db"
        openers = [threading.Thread(target=_open, args=(url, together, refused)) for _ in range(OPENED_AT_ONCE)]
        for opener in openers:
            opener.start()
        for opener in openers:
            opener.join()
    assert refused == []


def _open(url: str, together: threading.Barrier, refused: list[Exception]) -> None:
    database = Database(url)
    together.wait()
    try:
        with database.engine.connect() as connection:
            assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
    except Exception as error:  # noqa: BLE001 - whatever it is, the test says it
        refused.append(error)
    finally:
        database.close()
