"""The pictures that a step leaves beside its evidence: drawn into the store, named by their digests."""

import json
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from app.domain.measured import Measurements
from app.domain.promotion import State
from workers import pictures
from workers.context import Context
from workers.steps.scoring import Scored

log = logging.getLogger(__name__)
_MOST_BYTES = 4 << 20


def of_gates(context: Context, scored: Scored, measured: Measurements) -> dict[str, str]:
    """Digests by name: `parity`, `latency`, and `slices-1` and so on for each slices gate."""
    output, pairs = _pairs(context)
    drawn: dict[str, Callable[[Path], None]] = {
        "latency": lambda file: pictures.latency(
            file, scored.latency_samples_ms, _limits(context), "in ONNX Runtime, one thread"
        )
    }
    if pairs:
        drawn["parity"] = lambda file: pictures.parity(file, pairs, output)
    for number, gate in enumerate((gate for gate in context.policy.gates if gate.kind == "slices"), 1):
        found = next((slices for slices in measured.slices if slices.by == gate.by), None)
        if found is not None and gate.name in measured.metrics:
            whole = measured.metrics[gate.name]
            drawn[f"slices-{number}"] = partial(pictures.slices, gate=gate, whole=whole, found=found)
    return _kept(context, drawn)


def of_prove(context: Context, served_ms: Mapping[int, list[float]]) -> dict[str, str]:
    """Digests by name: `served-latency`, of calls over HTTP by batch size."""
    draw = partial(pictures.latency, samples=served_ms, limits=_limits(context), where="as served, over HTTP")
    return _kept(context, {"served-latency": draw})


def _limits(context: Context) -> dict[int, float]:
    return {gate.batch: gate.p99_ms for gate in context.policy.gates if gate.kind == "latency"}


def _kept(context: Context, drawn: Mapping[str, Callable[[Path], None]]) -> dict[str, str]:
    kept = {}
    with context.scratch("pictures") as folder:
        for name, draw in sorted(drawn.items()):
            file = folder / f"{name}.png"
            try:
                draw(file)
            except Exception:
                # The numbers came out of a sandbox: some that Matplotlib cannot draw cost their picture, and no more.
                log.exception("picture.failed", extra={"promotion": context.promotion_id, "picture": name})
                continue
            kept[name] = context.plant.store.put_file(file)
    return kept


def _pairs(context: Context) -> tuple[str, list[tuple[float, float]]]:
    """What `convert` left to plot, with the name of the output; nothing where it left anything else: it was written
    beside code that came with the model."""
    file = context.plant.store.file(context.step(State.CONVERT)["parity_pairs"])
    if file.stat().st_size > _MOST_BYTES:
        return "", []
    try:
        found = json.loads(file.read_text())
        pairs = pictures.drawable_pairs([float(x) for x in found["native"]], [float(x) for x in found["onnx"]])
        return str(found["output"]), pairs
    except (ValueError, TypeError, KeyError, RecursionError):
        return "", []
