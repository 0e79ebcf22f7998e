"""PROVE: start the release without traffic and look at what it really answers; reviewers decide on this."""

import json
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from app.domain.errors import Rejected
from app.domain.promotion import Done, Outcome, State
from app.ports import Endpoint, ServingClient
from app.services.releases import spec_of
from workers.context import Context
from workers.steps import swap
from workers.steps.drawing import of_prove
from workers.steps.served import compared, cut

LATENCY_CALLS = 200


def run(context: Context) -> Outcome:
    """Raises Rejected where served answers differ or the release runs on another kind of instance than asked;
    the server's own failure to start is a Fault."""
    build = context.step(State.BUILD)
    server = context.plant.servers[build["target"]]
    endpoint = server.start(spec_of(context.plant, build), context.fence)
    try:
        with context.plant.connect() as client:
            instance = _instance_kind(context, client, endpoint)
            ask = partial(client.infer, endpoint, context.model)
            served = compared(_rows(context), ask, context.policy.parity)
            samples = _latency_ms(context, client, endpoint)
    finally:
        # One that was overtaken must not end what its heir proves, or already serves: the token says so.
        server.stop(build["name"], context.fence)
    latency = {"p50": samples[len(samples) // 2], "p99": samples[int(len(samples) * 0.99)]}
    drawn = of_prove(context, samples)
    registry, note = swap.since_intake(context)
    said = {"instance": instance, "served": served, "latency_ms": latency, "pictures": drawn, "registry": registry}
    return Done(said, note)


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


def _latency_ms(context: Context, client: ServingClient, endpoint: Endpoint) -> list[float]:
    """How long single-row calls over HTTP take after a warm-up, in milliseconds, in ascending order."""
    rows = _rows(context)
    body = {"inputs": [cut(tensor, 0, 1) for tensor in rows["inputs"]]}
    seconds = []
    for call in range(LATENCY_CALLS + 20):
        begin = time.perf_counter()
        client.infer(endpoint, context.model, body)
        if call >= 20:
            seconds.append(time.perf_counter() - begin)
    return sorted(value * 1000 for value in seconds)
