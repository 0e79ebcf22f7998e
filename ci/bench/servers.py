"""The servers that are measured, each running for the length of a block with the same model in it."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from app.adapters.haproxy import HAProxyRouter, Layout
from app.adapters.triton_process import TritonProcess
from app.packaging import render_config, write_repository
from app.ports import Endpoint, ReleaseSpec, Route, Server
from ci.bench.models import ROOT, Models
from ci.bench.processes import LOOPBACK, answers, free_ports, running
from examples.airbnb.models import Kind

MODEL = "airbnb-price"
KIND: Kind = "gbr"


@contextlib.contextmanager
def triton(folder: Path, models: Models) -> Iterator[Endpoint]:
    """Triton as a release runs on it: what Headgate packages, one instance on the CPU."""
    converted = models.converted(KIND)
    config = render_config(MODEL, converted.inputs, converted.outputs, "cpu")
    repository = write_repository(folder / "repository", MODEL, converted.onnx, config)
    backend = ROOT / "image_templates" / "onnxruntime_backend" / "model.py"
    server = TritonProcess(folder / "triton", ROOT / ".triton", backend)
    name = f"bench-{os.getpid()}"
    try:
        yield server.start(ReleaseSpec(name, MODEL, repository), 0)
    finally:
        server.stop(name, None)


@contextlib.contextmanager
def router(folder: Path, endpoint: Endpoint) -> Iterator[str]:
    """HAProxy as Headgate configures it, with one stable release; yields the base URL."""
    http, grpc, lease = free_ports(3)
    # Nobody listens at the lease's address: it is asked for canaries only, and there is none.
    layout = Layout(folder / "router", {"production": (http, grpc)}, LOOPBACK, (LOOPBACK, lease))
    haproxy = HAProxyRouter(layout)
    haproxy.write_config([Route(MODEL, "production", Server("1@bench", endpoint))])
    base = haproxy.address("production")
    with running(haproxy.command(), folder / "haproxy.log", answers(f"{base}/v2/models/{MODEL}/ready")):
        yield base


@contextlib.contextmanager
def mlflow_serve(folder: Path, models: Models) -> Iterator[str]:
    """MLflow's scoring server in this very environment, one worker; yields the base URL."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(models.saved(KIND))]
    command += ["--env-manager", "local", "--workers", "1", "--host", LOOPBACK, "--port", str(port)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"}
    base = f"http://{LOOPBACK}:{port}"
    with running(command, folder / "mlflow.log", answers(f"{base}/ping"), environment):
        yield base
