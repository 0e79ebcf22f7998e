"""The entrance inside the sandbox: the same call and the same files as workers.sandbox, the answers from the model."""

import json
import shutil
from pathlib import Path


def main(program: str, _limits: str) -> None:
    """Write the result that lies beside the model, and for `convert` the files that belong to it."""
    model, output = Path("/in/model"), Path("/out")
    if program == "convert":
        for name in ("model.onnx", "rows.json", "parity.json"):
            shutil.copyfile(model / name, output / name)
    answers = json.loads((model / "answers.json").read_text())
    (output / "result.json").write_text(json.dumps(answers[program]))
