"""The plan: it says what a promotion would do, and leaves no trace in the database, in MLflow or in the queue."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from app.api.app import create_app
from app.db.models import Base
from app.db.session import Database
from app.domain.digests import digest_bytes
from app.domain.errors import Invalid, NotFound
from app.domain.policy import Approvals, Data, LatencyGate, Rollout, SchemaGate, default_policy
from app.services import principals
from app.services.plan import plan
from tests.fakes import quick
from tests.plant import MODEL, World
from tests.serving import headgate, served

ROWS = b"x,price\n1,1\n"


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    world = World(database, tmp_path)
    world.buckets.objects["s3://rows/holdout.csv"] = ROWS
    world.policies.known[MODEL] = quick(
        default_policy(MODEL),
        "staging",
        gates=(LatencyGate(50.0), SchemaGate()),
        data=Data("s3://rows/holdout.csv", "price"),
        approvals=Approvals(required=0),
        rollout=Rollout(steps=(20, 100), soak=timedelta(0)),
    )
    return world


def everything(database: Database) -> dict[str, list[Any]]:
    """All rows of all tables."""
    with database.read() as session:
        return {
            table: sorted(map(str, session.execute(text(f"SELECT * FROM {table}")).all()))
            for table in Base.metadata.tables
        }


def look(world: World, version: str = "1", environment: str = "staging") -> dict[str, Any]:
    """The plan, after which nothing is as it was not before."""
    before, tags, woken = everything(world.database), dict(world.registry.tags), list(world.queue.advanced)
    found = plan(world.core, MODEL, version, environment)
    assert everything(world.database) == before
    assert (world.registry.tags, world.queue.advanced, world.queue.deliveries) == (tags, woken, world.queue.deliveries)
    return found


def test_a_first_release(world: World) -> None:
    found = look(world)
    assert (found["refused"], found["serves_now"], found["supersedes"]) == (None, None, [])
    assert found["states"][0] == "REQUESTED" and found["states"][-1] == "LIVE"
    assert [gate["kind"] for gate in found["gates"]] == ["latency", "schema"]
    assert found["gates"][0]["p99_ms"] == 50.0
    assert found["approvals"]["required"] == 0
    assert found["rollout"]["steps"] == [100]
    assert (found["data"]["digest"], found["data"]["rows"]) == (None, 5000)


def test_what_it_says_is_what_happens(world: World) -> None:
    planned = look(world)
    shown = world.run(world.ask("1", "staging"))
    assert shown["state"] == "LIVE"
    assert [step["state"] for step in shown["steps"]] == planned["states"]
    assert shown["policy_digest"] == planned["policy_digest"]
    assert {look["weight"] for look in shown["evidence"]["rollout"]["history"]} == set(planned["rollout"]["steps"])

    after = look(world, "2")
    assert after["serves_now"]["version"] == "1"
    assert after["serves_now"]["digest"] == shown["digest"]
    assert after["rollout"]["steps"] == [20, 100]
    assert (after["data"]["digest"], after["data"]["digest_from"]) == (digest_bytes(ROWS), "last promotion")
    assert look(world, "1")["refused"] == "version 1 already serves"


def test_what_would_be_superseded(world: World) -> None:
    waits = world.ask("1", "production")
    world.run(waits)
    found = look(world, "2", "production")
    assert found["supersedes"] == [{"id": waits, "version": "1", "state": "APPROVAL"}]
    assert found["refused"] is None
    assert look(world, "1", "production")["refused"] == "version 1 is already on its way"


def test_a_digest_of_the_policy_comes_first(world: World) -> None:
    pinned = Data("s3://rows/holdout.csv", "price", digest=digest_bytes(b"other"))
    world.policies.known[MODEL] = quick(default_policy(MODEL), "staging", data=pinned)
    assert look(world)["data"]["digest_from"] == "policy"


def test_what_cannot_be_planned(world: World) -> None:
    with pytest.raises(NotFound, match="no version 99"):
        plan(world.core, MODEL, "99", "staging")
    with pytest.raises(Invalid, match="no environment 'moon'"):
        plan(world.core, MODEL, "1", "moon")
    world.policies.known[MODEL] = Invalid("airbnb-price.yaml", "line 3: unknown key")
    with pytest.raises(Invalid, match="line 3"):
        plan(world.core, MODEL, "1", "staging")


@pytest.fixture
def http(world: World) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {principals.create(world.database, 'ada', 'auditor', 'test')}"}
    app = create_app(world.core, lambda headers, body, now: None, world.store)
    with served(app) as url, httpx.Client(base_url=url, headers=headers, trust_env=False) as client:
        yield client


def test_over_rest_and_on_the_command_line(world: World, http: httpx.Client) -> None:
    where = {"model": MODEL, "version": "1", "environment": "staging"}
    assert http.get("/api/v1/plan", params=where).json() == plan(world.core, MODEL, "1", "staging")
    assert http.get("/api/v1/plan", params={**where, "version": "x"}).status_code == 422
    assert http.get("/api/v1/plan", params={**where, "version": "99"}).status_code == 404

    told = headgate(http, "plan", MODEL, "1", "--to", "staging")
    assert told.returncode == 0, told.stderr
    for words in (
        "REQUESTED > SNAPSHOT",
        "s3://rows/holdout.csv",
        "p99_ms 50.0",
        "kind schema",
        "nothing yet",
        "100 %",
    ):
        assert words in told.stdout
    world.run(world.ask("1", "staging"))
    refused = headgate(http, "plan", MODEL, "1", "--to", "staging")
    assert refused.returncode == 1
    assert "version 1 already serves" in refused.stdout
