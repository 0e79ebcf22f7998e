"""The router's files while no HAProxy runs: what is written, what is refused, who waits for whom."""

import fcntl
from dataclasses import replace
from pathlib import Path

import pytest

from app.adapters.haproxy import HAProxyRouter, Layout
from app.domain.errors import Fault, LostLease, Transient
from app.ports import Endpoint, Route, Server

ROUTE = Route("airbnb-price", "production", Server("1@0123456789ab", Endpoint("127.0.0.1", 9001, 9002)))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "r", {"production": (8000, 8001)}, "127.0.0.1", ("127.0.0.1", 8080))


def test_the_command_names_the_files_that_were_written(layout: Layout) -> None:
    router = HAProxyRouter(layout)
    router.write_config([ROUTE])
    command = router.command()
    assert command[:2] == ["haproxy", "-W"] and command[-1] == str(layout.config)
    assert str(layout.master_socket) in command[3]
    assert "airbnb-price" in layout.config.read_text()
    router.write_config([])
    assert "airbnb-price" not in layout.config.read_text()


def test_a_damaged_record_is_said_to_be_one(layout: Layout) -> None:
    router = HAProxyRouter(layout)
    router.write_config([ROUTE])
    for text in ("{", "[{}]", "[1]", "3"):
        layout.record.write_text(text)
        with pytest.raises(Fault, match="is damaged"):
            router.apply([], ROUTE, 1)


def test_one_caller_at_a_time(layout: Layout) -> None:
    router = HAProxyRouter(layout, patience=0.05)
    router.write_config([ROUTE])
    with layout.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Transient, match="Another process"):
            router.write_config([])
    router.write_config([])


def test_a_router_that_is_away_changes_no_file(layout: Layout) -> None:
    router = HAProxyRouter(layout)
    router.write_config([])
    before = {path: path.read_bytes() for path in layout.folder.iterdir()}
    with pytest.raises(Transient, match="does not answer"):
        router.apply([ROUTE], ROUTE, 1)
    layout.fences.unlink()  # who was there is kept all the same
    assert {path: path.read_bytes() for path in layout.folder.iterdir()} == before


def test_who_comes_with_an_older_token_is_refused_before_anything_is_looked_at(layout: Layout) -> None:
    router, staging = HAProxyRouter(layout), replace(ROUTE, model="another")
    router.write_config([ROUTE])
    with pytest.raises(Transient, match="does not answer"):
        router.apply([ROUTE], ROUTE, 7)
    router.write_config([])  # what a restart does
    before = {path: path.read_bytes() for path in layout.folder.iterdir()}
    with pytest.raises(LostLease, match="later holder") as caught:
        HAProxyRouter(layout).apply([ROUTE], ROUTE, 6)
    assert caught.value.seen == 7
    assert {path: path.read_bytes() for path in layout.folder.iterdir()} == before
    # Each route has tokens of its own, and the last holder may come again.
    for route, fence in ((staging, 1), (ROUTE, 7)):
        with pytest.raises(Transient, match="does not answer"):
            router.apply([route], route, fence)


def test_damaged_tokens_are_said_to_be_ones(layout: Layout) -> None:
    router = HAProxyRouter(layout)
    router.write_config([ROUTE])
    for text in ("{", "[1]", '{"a": "b"}', "3"):
        layout.fences.write_text(text)
        with pytest.raises(Fault, match=r"fences\.json is damaged"):
            router.apply([ROUTE], ROUTE, 1)


def test_an_environment_without_ports_is_a_fault(layout: Layout) -> None:
    router = HAProxyRouter(layout)
    with pytest.raises(Fault, match="no environment 'elsewhere'"):
        router.address("elsewhere")
    assert (router.address("production"), router.grpc_address("production")) == (
        "http://127.0.0.1:8000",
        "127.0.0.1:8001",
    )
