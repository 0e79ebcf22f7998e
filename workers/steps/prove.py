"""PROVE: start the release without traffic and look at what it really answers; reviewers decide on this."""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from app.domain.errors import Rejected
from app.domain.promotion import Done, End, Outcome, State
from app.ports import Endpoint, ServingClient
from app.services.releases import spec_of
from workers.context import Context
from workers.steps import served_latency, swap
from workers.steps.drawing import of_prove
from workers.steps.served import compared
from workers.steps.served_latency import CALLS, failed, p99


def run(context: Context) -> Outcome:
    """Raises Rejected where served answers differ or the release runs on another kind of instance than asked; one that
    is slower than the policy's latency gates allow is rejected with what was measured. The server's own failure to
    start is a Fault."""
    build = context.step(State.BUILD)
    server = context.plant.servers[build["target"]]
    endpoint = server.start(spec_of(context.plant, build), context.fence)
    try:
        with context.plant.connect() as client:
            instance = _instance_kind(context, client, endpoint)
            rows = _rows(context)
            served = compared(rows, partial(client.infer, endpoint, context.model), context.policy.parity)
            latency = served_latency.measure(context, client, endpoint, rows["inputs"])
    finally:
        # One that was overtaken must not end what its heir proves, or already serves: the token says so.
        server.stop(build["name"], context.fence)
    said = {
        "instance": instance,
        "served": served,
        "latency_ms": {"p50": latency.samples_ms[1][CALLS // 2], "p99": p99(latency.samples_ms[1])},
        "results": [result.as_json() for result in latency.results],
        "pictures": of_prove(context, latency.samples_ms),
    }
    slow = failed(latency)
    if slow:
        return End(State.REJECTED, "; ".join(slow), said)
    registry, note = swap.since_intake(context)
    return Done({**said, "registry": registry}, note)


def _instance_kind(context: Context, client: ServingClient, endpoint: Endpoint) -> str:
    groups = client.config(endpoint, context.model).get("instance_group", [])
    kinds = sorted({str(group["kind"]) for group in groups})
    wanted = f"KIND_{context.policy.target.instance.upper()}"
    if kinds != [wanted]:
        raise Rejected(
            f"The policy asks for {wanted}, the server runs {', '.join(kinds) or 'nothing'}.",
            "A tree model has no GPU operators in ONNX Runtime: set target.instance to cpu.",
        )
    return wanted


def _rows(context: Context) -> Mapping[str, Any]:
    file = context.plant.store.file(context.step(State.CONVERT)["served_rows"])
    rows: Mapping[str, Any] = json.loads(file.read_text())
    return rows
