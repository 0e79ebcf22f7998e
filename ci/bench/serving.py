"""Serving one GradientBoosting pipeline, a row a request: MLflow's own server, Triton, Triton behind the router."""

import contextlib
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd

from ci.bench import load, servers
from ci.bench.figures import Group, in_turns, number, percentile, ratio
from ci.bench.models import Models, split_body
from examples.airbnb.data import TEXT, live_request
from workers.sandbox.runner import Runner

ROWS = 64
CLIENTS = (8, 1)
# More processes would take the two cores of a small machine from the servers; see the last row of the table.
PROCESSES = 2
MLFLOW, TRITON, ROUTER, IN_PROCESS, CEILING = (
    "`mlflow models serve`",
    "Triton, directly",
    "Triton behind HAProxy",
    "ONNX Runtime in process",
    "load generator's ceiling",
)
Measure = Callable[[int, float], load.Load]


@dataclass(frozen=True)
class Side:
    """One way to get an answer: `measure(clients, seconds)` asks for the same rows again and again; `predictions` are
    its answers to them, None where it predicts nothing."""

    measure: Measure
    predictions: Sequence[float] | None


def run(folder: Path, models: Models, seconds: float, rounds: int) -> Group:
    """Start all of them, see that they answer alike, then measure in turns; `seconds` is one window."""
    rows = models.judged(ROWS)
    with contextlib.ExitStack() as stack:
        endpoint = stack.enter_context(servers.triton(folder, models))
        router = stack.enter_context(servers.router(folder, endpoint))
        mlflow = stack.enter_context(servers.mlflow_serve(folder, models))
        sides = {
            MLFLOW: _mlflow_side(mlflow, rows),
            TRITON: _v2_side(f"http://{endpoint.host}:{endpoint.http_port}", rows),
            ROUTER: _v2_side(router, rows),
            IN_PROCESS: _in_process(models, rows),
            CEILING: Side(_asking(f"{router}/v2/health/ready", [None]), None),
        }
        _check_alike(sides)
        for side in sides.values():
            side.measure(max(CLIENTS), seconds / 4)  # the first requests warm caches and connections up
        measured = {
            clients: in_turns({name: partial(side.measure, clients, seconds) for name, side in sides.items()}, rounds)
            for clients in CLIENTS
        }
    return _group(measured, models, seconds, rounds)


def _asking(url: str, bodies: Sequence[bytes | None]) -> Measure:
    requests = [load.http_request(url, body) for body in bodies]
    return lambda clients, seconds: load.closed(url, requests, clients, seconds, min(PROCESSES, clients))


def _v2_side(base: str, rows: pd.DataFrame) -> Side:
    url = f"{base}/v2/models/{servers.MODEL}/infer"
    every = httpx.post(url, json=live_request(rows), trust_env=False).raise_for_status().json()
    bodies = [json.dumps(live_request(rows.iloc[[n]])).encode() for n in range(len(rows))]
    return Side(_asking(url, bodies), every["outputs"][0]["data"])


def _mlflow_side(base: str, rows: pd.DataFrame) -> Side:
    url, headers = f"{base}/invocations", {"Content-Type": "application/json"}
    every = httpx.post(url, content=split_body(rows), headers=headers, timeout=30, trust_env=False).raise_for_status()
    bodies = [split_body(rows.iloc[[n]]) for n in range(len(rows))]
    return Side(_asking(url, bodies), every.json()["predictions"])


def _in_process(models: Models, rows: pd.DataFrame) -> Side:
    """Calls of the same ONNX file without any server; a client is a thread."""
    runner = Runner(models.converted(servers.KIND).onnx.read_bytes())
    table = {name: rows[name].to_numpy(object if name in TEXT else np.float32) for name in rows.columns}
    feeds = [runner.feed({name: values[n : n + 1] for name, values in table.items()}) for n in range(len(rows))]

    def measure(clients: int, seconds: float) -> load.Load:
        begun = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            windows = [pool.submit(_call, runner, feeds, seconds) for _ in range(clients)]
            latencies = [ms for window in windows for ms in window.result()]
        return load.Load(len(latencies) / (time.perf_counter() - begun), latencies, 0.0)

    return Side(measure, runner.run(table)[0].ravel().tolist())


def _call(runner: Runner, feeds: Sequence[Mapping[str, Any]], seconds: float) -> list[float]:
    """One client's calls, one after the other; their milliseconds."""
    took: list[float] = []
    end = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        runner.call(feeds[len(took) % len(feeds)])
        took.append((time.perf_counter() - begun) * 1000)
    return took


def _check_alike(sides: Mapping[str, Side]) -> None:
    """Speed of wrong answers is worth nothing. Raises RuntimeError where a side predicts something else."""
    predicted = {name: side.predictions for name, side in sides.items() if side.predictions is not None}
    for name, values in predicted.items():
        if not np.allclose(values, predicted[MLFLOW], rtol=1e-4, atol=1e-5):
            raise RuntimeError(f"{name} does not answer like {MLFLOW}: nothing is measured")


def _group(measured: Mapping[int, Mapping[str, list[load.Load]]], models: Models, seconds: float, rounds: int) -> Group:
    columns = ["answered by"]
    for clients in CLIENTS:
        who = f"{clients} client{'s' if clients > 1 else ''}"
        columns += [f"req/s, {who}", "x MLflow", "p50 / p99 ms"]
    figures = {str(clients): _figures(loads) for clients, loads in measured.items()}
    rows = []
    for name in measured[CLIENTS[0]]:
        row = [name]
        for clients in CLIENTS:
            found = figures[str(clients)][name]
            times = "-" if name == CEILING else number(found["ratio"])
            row += [number(found["rate"]), times, f"{number(found['p50'])} / {number(found['p99'])}"]
        rows.append(row)
    busiest = max(by_name[name]["generator_cores"] for by_name in figures.values() for name in (MLFLOW, TRITON, ROUTER))
    notes = [
        f"Model: `{servers.KIND}` of the Airbnb example, trained on {models.rows_from}; {ROWS} rows of the holdout in "
        "turn. Before the first round all four gave the same predictions for them.",
        f"Rounds: {rounds}, windows of {seconds:g} s; rates and ratios are medians over the rounds, latencies are over "
        "all requests.",
        f"The load generator is {PROCESSES} Python processes with raw keep-alive sockets and prebuilt requests (one "
        f"process at 1 client) on the same cores as the servers, of which it took {busiest:.2f} at most. Its ceiling "
        "is what it gets from HAProxy answering a GET by itself.",
    ]
    return Group("serving", "Serving, one row a request", columns, rows, notes, figures)


def _figures(loads: Mapping[str, list[load.Load]]) -> dict[str, dict[str, float]]:
    baseline = [one.rate for one in loads[MLFLOW]]
    found = {}
    for name, windows in loads.items():
        rates = [one.rate for one in windows]
        latencies = [ms for one in windows for ms in one.latencies_ms]
        found[name] = {
            "rate": statistics.median(rates),
            "ratio": ratio(rates, baseline),
            "p50": percentile(latencies, 0.5),
            "p99": percentile(latencies, 0.99),
            "generator_cores": statistics.median(one.generator_cores for one in windows),
        }
    return found
