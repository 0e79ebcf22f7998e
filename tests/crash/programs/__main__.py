"""The entrance inside the sandbox: the same call and the same files as workers.sandbox, the answers from the model."""

import json
import shutil
from pathlib import Path

SCORED = {
    "metrics": {},
    "slices": [],
    "noise": [],
    "latency_ms": {"1": 0.2},
    "latency_samples_ms": {"1": [0.1, 0.2]},
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
}


def main(program: str, _limits: str) -> None:
    """Write the result that lies beside the model, and for `convert` the files that belong to it. `score` does not see
    what the model came as: all models here score the same."""
    model, output = Path("/in/model"), Path("/out")
    if program == "convert":
        for name in ("model.onnx", "rows.json", "parity.json"):
            shutil.copyfile(model / name, output / name)
    answers = {"score": SCORED} if program == "score" else json.loads((model / "answers.json").read_text())
    (output / "result.json").write_text(json.dumps(answers[program]))
