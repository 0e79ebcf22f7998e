"""The models that are promoted while processes die: two versions each, whose answers tell them apart."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.fakes import CONVERTED

ROWS = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=np.float32)
WEIGHTS = {"1": (1.0, 2.0), "2": (2.0, 1.0)}
POLICY = """\
model: {model}
environments:
  staging:
    triggers: {{alias: to-staging}}
    approvals: {{required: 1}}
    rollout:
      steps: [50, 100]
      soak: 200ms
      guardrails: {{min_requests: 1, p99_ms: 60000, error_rate: 1}}
      max_wait: 72h
"""


def write_artifacts(folder: Path, version: str) -> Path:
    """What the version is made of: an MLmodel, and the answers that the sandbox's stand-in programs give."""
    weights = np.array(WEIGHTS[version], dtype=np.float32).reshape(2, 1)
    made = folder / f"version-{version}"
    made.mkdir(parents=True)
    (made / "MLmodel").write_text("flavors: {}\n")
    onnx.save(_onnx(weights), str(made / "model.onnx"))
    signature = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}, {"name": "y", "datatype": "FP32", "shape": [-1, 1]}
    answers = {
        "scan": {"findings": [], "errors": [], "scanned": 4, "alone": {}},
        "convert": {**CONVERTED, "inputs": [signature[0]], "outputs": [signature[1]]},
    }
    (made / "answers.json").write_text(json.dumps(answers))
    (made / "rows.json").write_text(
        json.dumps({"inputs": [_tensor("x", ROWS)], "outputs": [_tensor("y", ROWS @ weights)]})
    )
    (made / "parity.json").write_text("[]")
    return made


def request() -> dict[str, Any]:
    """One row for the served model."""
    return {"inputs": [_tensor("x", ROWS[:1])]}


def version_that_answers(answer: httpx.Response) -> str | None:
    """Which version gave this answer, by the numbers in it."""
    data = answer.json()["outputs"][0]["data"]
    fits = (version for version, weights in WEIGHTS.items() if np.allclose(data, ROWS[:1] @ np.array(weights)))
    return next(fits, None)


def register(registry: httpx.Client, artifacts: Path, models: Sequence[str]) -> None:
    """Upload both versions once and register them under every name."""
    experiment = _post(registry, "experiments/create", {"name": "crash"})["experiment_id"]
    run = _post(registry, "runs/create", {"experiment_id": experiment})["run"]["info"]
    for version in WEIGHTS:
        for file in sorted(write_artifacts(artifacts, version).iterdir()):
            place = f"{experiment}/{run['run_id']}/artifacts/{version}/{file.name}"
            put = registry.put(f"/api/2.0/mlflow-artifacts/artifacts/{place}", content=file.read_bytes())
            put.raise_for_status()
    for model in models:
        _post(registry, "registered-models/create", {"name": model})
        for version in WEIGHTS:
            source = {"source": f"{run['artifact_uri']}/{version}", "run_id": run["run_id"]}
            _post(registry, "model-versions/create", {"name": model, **source})


def _post(registry: httpx.Client, path: str, body: dict[str, Any]) -> Any:
    answer = registry.post(f"/api/2.0/mlflow/{path}", json=body)
    answer.raise_for_status()
    return answer.json()


def _tensor(name: str, rows: "np.ndarray[Any, Any]") -> dict[str, Any]:
    return {"name": name, "datatype": "FP32", "shape": list(rows.shape), "data": rows.ravel().tolist()}


def _onnx(weights: "np.ndarray[Any, Any]") -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])
    w = helper.make_tensor("w", TensorProto.FLOAT, [2, 1], weights.ravel().tolist())
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "crash", [x], [y], [w])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
