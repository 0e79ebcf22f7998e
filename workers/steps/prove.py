"""PROVE: start the release without traffic and look at what it really answers; reviewers decide on this."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.domain.errors import Rejected
from app.domain.promotion import Done, End, Outcome, State
from app.domain.v2 import wrong_rows
from app.ports import Endpoint, ServingClient
from app.services.releases import spec_of
from workers.context import Context
from workers.steps import served_latency, swap
from workers.steps.drawing import of_prove
from workers.steps.served_latency import CALLS, failed, p99

ROWS_A_CALL = 64
# Stands for an error without a size (another label, an infinity): JSON has no word for infinity.
NOT_COMPARABLE = 1e308


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
            served = _served_parity(context, client, endpoint)
            latency = served_latency.measure(context, client, endpoint, _rows(context)["inputs"])
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


def _served_parity(context: Context, client: ServingClient, endpoint: Endpoint) -> dict[str, Any]:
    rows, parity = _rows(context), context.policy.parity
    wrong, largest, count = 0, 0.0, 0
    for inputs, outputs in _slices(rows):
        answer = client.infer(endpoint, context.model, {"inputs": inputs})
        differing, error = wrong_rows(outputs, answer["outputs"], parity.rtol, parity.atol)
        wrong, largest, count = wrong + differing, max(largest, error), count + outputs[0]["shape"][0]
    if count == 0:
        raise Rejected("There was no row to compare the served answers on.", "Log the model with an input example.")
    if wrong > parity.max_wrong_rows:
        raise Rejected(
            f"The served model differs from the native one on {wrong} of {count} rows (largest error {largest:.3g}).",
            "See the evidence of PROVE; the server may run another version of ONNX Runtime.",
        )
    return {"rows": count, "wrong_rows": wrong, "largest_error": min(largest, NOT_COMPARABLE)}


def _slices(rows: Mapping[str, Any]) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    total = int(rows["inputs"][0]["shape"][0])
    for start in range(0, total, ROWS_A_CALL):
        stop = min(start + ROWS_A_CALL, total)
        yield [_cut(t, start, stop) for t in rows["inputs"]], [_cut(t, start, stop) for t in rows["outputs"]]


def _cut(tensor: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
    """Rows `start` to `stop` of a V2 tensor whose flat `data` lies row by row."""
    shape: Sequence[int] = tensor["shape"]
    width = len(tensor["data"]) // shape[0]
    data = tensor["data"][start * width : stop * width]
    return {**tensor, "shape": [stop - start, *shape[1:]], "data": data}
