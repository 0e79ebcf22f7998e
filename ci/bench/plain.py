"""A program of the sandbox in a plain process, so that the sandbox's own cost shows. For our own models only."""

import json
from pathlib import Path

from workers.sandbox.__main__ import run

# As in the sandbox, packages come last on the path: elsewhere every import of the standard library would look there
# first. The first four arguments are those of `main`, the others are folders to import from.
BOOTSTRAP = "import sys; sys.path += sys.argv[5:]; from ci.bench.plain import main; main(*sys.argv[1:5])"


def main(program: str, request: str, inputs: str, output: str) -> None:
    """Do what the entrance inside the sandbox does, but for the limits; `request` is JSON, the others are folders."""
    result = run(program, json.loads(request), Path(inputs), Path(output))
    (Path(output) / "result.json").write_text(json.dumps(result, allow_nan=False))
