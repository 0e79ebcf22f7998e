"""A promotion with all that evidence can have: judging rows, groups, pictures, reasons, two approvals."""

from datetime import timedelta
from typing import Any

from app.domain.permissions import Caller
from app.domain.policy import Approvals, Data, LatencyGate, MetricGate, Rollout, SlicesGate, default_policy
from app.services import approvals, promotions, trail
from app.verifier.headgate_verify import Key, parse_key
from tests.fakes import quick
from tests.plant import MODEL, World

BY = ("city", "room")
PEOPLE = ("rita.smith@example.org", "max@example.org")


def prepared(world: World, groups: tuple[str, ...] = ("Ulm", "Berlin"), reviewers: int = 2) -> World:
    """The world with judging rows in `groups`, a policy that asks for so many reviewers, and something to plot."""
    rows = [{"key": [key, "shared"], "rows": 60, "metrics": {"rmse": 0.5}} for key in groups]
    world.buckets.objects["s3://rows/holdout.csv"] = b"x,city,room,price\n1,Ulm,shared,1\n"
    world.sandbox.results["score"].update(
        metrics={"rmse": 0.5}, slices=[{"by": list(BY), "groups": rows, "left_out": 0}]
    )
    world.sandbox.pairs = '{"output": "price", "native": [1, 2, 3], "onnx": [1, 2, 3]}'
    world.policies.known[MODEL] = quick(
        default_policy(MODEL),
        gates=(MetricGate("rmse", max=0.55), SlicesGate(BY, "rmse", 1.6), LatencyGate(100.0)),
        data=Data("s3://rows/holdout.csv", "price"),
        rollout=Rollout(soak=timedelta(0)),
        approvals=Approvals(required=reviewers),
    )
    return world


def asked(world: World, reason: str = "fewer large errors", by: str = "bob.jones", version: str = "1") -> int:
    """A promotion that has come as far as it goes without people."""
    number = promotions.request(world.core, MODEL, version, "production", reason, by).id
    world.run(number)
    return number


def approved(world: World, number: int, reason: str = "looks right", people: tuple[str, ...] = PEOPLE) -> int:
    """The promotion after these people have approved it, as far as it goes then."""
    for name in people:
        digest: Any = world.show(number)["digest"]
        approvals.decide(world.core, number, Caller(name, "reviewer"), "approve", digest, reason)
    world.run(number)
    return number


def keys(world: World) -> list[Key]:
    """The public keys of the trail, as an auditor has noted them."""
    return [parse_key(text) for text in trail.checkpoint(world.core)["keys"]]
