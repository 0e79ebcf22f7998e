"""Deny by default: every route of the application asks for a permission, or stands in the short list of open ones."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import RouteContext, iter_route_contexts
from starlette.routing import Mount, Route

from app.api.app import create_app
from app.api.auth import OPEN, Reader, undeclared
from app.db.session import Database
from tests.plant import World
from tests.serving import served


@pytest.fixture
def app(database: Database, tmp_path: Path) -> FastAPI:
    world = World(database, tmp_path)
    return create_app(world.core, lambda headers, body, now: None, world.store)


def calls(app: FastAPI) -> Iterator[tuple[str, str, RouteContext]]:
    for route in iter_route_contexts(app.routes):
        for method in route.methods or ():
            yield method, str(route.path), route


def test_no_route_is_forgotten(app: FastAPI) -> None:
    assert undeclared(app) == []
    assert len(list(calls(app))) > 25
    assert {path for _, path, _ in calls(app)} >= set(OPEN)  # no reason outlives its route


def test_a_route_without_a_permission_is_found_wherever_it_is(app: FastAPI) -> None:
    def forgotten() -> None:
        """A route that asks for nothing."""

    inner = APIRouter(prefix="/inner")
    inner.get("/forgotten")(forgotten)
    outer = APIRouter(prefix="/outer")
    outer.include_router(inner)
    app.include_router(outer)
    app.get("/hidden", include_in_schema=False)(forgotten)
    app.routes.append(Route("/plain", forgotten))
    app.routes.append(Mount("/folder", FastAPI()))

    def asked(_caller: Reader) -> None:
        """A route that asks."""

    app.get("/asked")(asked)
    assert sorted(undeclared(app)) == ["/folder", "/hidden", "/outer/inner/forgotten", "/plain"]


def test_without_a_token_nothing_answers_but_the_open_ones(app: FastAPI) -> None:
    with served(app) as url, httpx.Client(base_url=url, trust_env=False) as http:
        for method, path in ((method, path) for method, path, _ in calls(app) if path not in OPEN):
            answer = http.request(method, re.sub(r"\{[^}]*\}", "1", path))
            assert answer.status_code == 401, (method, path)
            assert answer.headers["WWW-Authenticate"] == "Bearer"
