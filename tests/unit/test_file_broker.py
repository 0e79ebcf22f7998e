"""The broker of files under writers that were killed: nothing half is ever read, and nobody ends for it."""

from pathlib import Path

import pytest
from celery import Celery

from app.adapters.celery_queue import make_app


@pytest.fixture
def app(tmp_path: Path) -> Celery:
    for name in ("messages", "control"):
        (tmp_path / name).mkdir()
    return make_app("", str(tmp_path))


def received(app: Celery) -> list[str]:
    """The names of the tasks that a worker would get now."""
    found = []
    with app.connection_for_read() as connection, connection.SimpleQueue("headgate") as queue:
        while queue.qsize():
            message = queue.get(block=False)
            found.append(message.headers["task"])
            message.ack()
    return found


def test_messages_come_in_the_order_in_which_they_were_sent(app: Celery) -> None:
    for name in ("one", "two", "three"):
        app.send_task(name)
    assert received(app) == ["one", "two", "three"]
    assert received(app) == []


@pytest.mark.parametrize("half", [b"", b'{"body": "cut o'])
def test_a_message_of_a_writer_that_was_killed_is_left_out(app: Celery, tmp_path: Path, half: bytes) -> None:
    (tmp_path / "messages" / "00000000000000000001_x.headgate.msg").write_bytes(half)
    app.send_task("whole")
    with app.connection_for_read() as connection:
        assert connection.default_channel._get("headgate")["headers"]["task"] == "whole"
    assert list((tmp_path / "messages").iterdir()) == []


def test_a_table_of_queues_that_was_cut_short_is_written_anew(app: Celery, tmp_path: Path) -> None:
    table = tmp_path / "control" / "headgate.exchange"
    table.write_bytes(b"")
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        channel._queue_bind("headgate", "headgate", "", "headgate")
        assert [row.queue for row in channel.get_table("headgate")] == ["headgate"]
    assert b"headgate" in table.read_bytes()
