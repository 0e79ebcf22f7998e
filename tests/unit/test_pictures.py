"""Pictures beside the evidence: files of a kind, whatever the numbers and words in them, and how they are served."""

import json
import math
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.api.app import create_app
from app.db.session import Database
from app.domain.digests import digest_bytes
from app.domain.measured import Group, Slices
from app.domain.policy import Approvals, Data, Rollout, SlicesGate, default_policy
from app.services import principals
from tests.fakes import quick
from tests.plant import MODEL, World
from tests.serving import served
from workers import pictures

PNG = b"\x89PNG\r\n\x1a\n"
GATE = SlicesGate(("city", "room"), "rmse", 1.5)
NUMBERS = st.floats() | st.sampled_from([0.0, 1e308, -1e308, 5e-324, math.nan, math.inf])


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=80), st.lists(st.tuples(NUMBERS, NUMBERS), max_size=5), st.floats(0, 1e300))
def test_whatever_came_out_of_a_sandbox_can_be_drawn(
    tmp_path: Path, words: str, pairs: list[tuple[float, float]], whole: float
) -> None:
    key = (f"$\\frac{{{words}", words)
    groups = tuple(Group(key, 40 + at, {"rmse": value}) for at, (value, _) in enumerate(pairs))
    drawable = pictures.drawable_pairs([a for a, _ in pairs], [b for _, b in pairs])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pictures.parity(tmp_path / "parity.png", drawable, words)
        pictures.slices(tmp_path / "slices.png", GATE, whole, Slices(GATE.by, groups))
        pictures.latency(tmp_path / "latency.png", {1: [abs(a) for a, _ in pairs]}, {1: 5.0}, "here")
    assert all(file.read_bytes().startswith(PNG) for file in tmp_path.iterdir())


def test_the_same_numbers_give_the_same_file(tmp_path: Path) -> None:
    for name in ("one", "other"):
        pictures.parity(tmp_path / name, [(1.0, 1.0), (2.0, 2.1)], "price")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    world = World(database, tmp_path)
    world.buckets.objects["s3://rows/holdout.csv"] = b"x,city,room,price\n1,Ulm,shared,1\n"
    groups = [{"key": ["Ulm", "shared"], "rows": 60, "metrics": {"rmse": 0.5}}]
    world.sandbox.results["score"].update(
        metrics={"rmse": 0.5}, slices=[{"by": list(GATE.by), "groups": groups, "left_out": 0}]
    )
    world.policies.known[MODEL] = quick(
        default_policy(MODEL),
        "staging",
        gates=(GATE,),
        data=Data("s3://rows/holdout.csv", "price"),
        approvals=Approvals(required=0),
        rollout=Rollout(soak=timedelta(0)),
    )
    return world


def test_steps_leave_them_and_name_their_digests(world: World) -> None:
    world.sandbox.pairs = json.dumps({"output": "price", "native": [1.0, 2.0], "onnx": [1.0, 2.0]})
    shown = world.run(world.ask("1", "staging"))
    assert shown["state"] == "LIVE"
    drawn = shown["evidence"]["gates"]["pictures"] | shown["evidence"]["prove"]["pictures"]
    assert sorted(drawn) == ["latency", "parity", "served-latency", "slices-1"]
    for digest in drawn.values():
        assert world.store.file(digest).read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    "pairs",
    ["[]", "no JSON", '{"output": 1}', '{"output": "y", "native": ["a"], "onnx": [1]}', "[" * 5000, '{"native": 3}'],
)
def test_pairs_that_make_no_sense_cost_only_their_picture(world: World, pairs: str) -> None:
    world.sandbox.pairs = pairs
    shown = world.run(world.ask("1", "staging"))
    assert shown["state"] == "LIVE"
    assert sorted(shown["evidence"]["gates"]["pictures"]) == ["latency", "slices-1"]


@pytest.fixture
def http(world: World) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {principals.create(world.database, 'ada', 'auditor', 'test')}"}
    app = create_app(world.core, lambda headers, body, now: None, world.store)
    with served(app) as url, httpx.Client(base_url=url, headers=headers, trust_env=False) as client:
        yield client


def test_they_are_served_as_they_were_recorded(world: World, http: httpx.Client) -> None:
    number = world.run(world.ask("1", "staging"))["id"]
    digest = world.show(number)["evidence"]["gates"]["pictures"]["slices-1"]
    answer = http.get(f"/api/v1/promotions/{number}/pictures/slices-1")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert digest_bytes(answer.content) == digest

    unknown = http.get(f"/api/v1/promotions/{number}/pictures/nothing")
    assert unknown.status_code == 404
    assert "latency, served-latency, slices-1" in unknown.json()["detail"]
    assert http.get("/api/v1/promotions/99/pictures/latency").status_code == 404
    assert http.get(f"/api/v1/promotions/{number}/pictures/..%2Fetc").status_code in (404, 422)

    # One that was changed in the store is not shown.
    file = world.store.file(digest)
    file.chmod(0o644)
    file.write_bytes(PNG + b"another")
    assert http.get(f"/api/v1/promotions/{number}/pictures/slices-1").status_code == 500
