"""The entrance inside the sandbox: limits first, then the named program on /in, its result into /out."""

import importlib
import json
from pathlib import Path
from typing import Any, Final

from . import limits
from .refusal import Refused

PROGRAMS: Final = ("scan", "convert", "score", "probe")


def main(program: str, limits_json: str) -> None:
    """Run one program under the limits; its request is /in/request.json and its result /out/result.json."""
    limits.apply(limits_json)
    inputs, output = Path("/in"), Path("/out")
    request = json.loads((inputs / "request.json").read_text())
    result = run(program, request, inputs, output)
    (output / "result.json").write_text(json.dumps(result, allow_nan=False))


def run(program: str, request: dict[str, Any], inputs: Path, output: Path) -> dict[str, Any]:
    """The result of a program, or `{"refused": {"code", "reason", "remedy"}}` where the model is at fault.

    Raises:
        ValueError: there is no such program.
    """
    if program not in PROGRAMS:
        raise ValueError(f"no program {program!r}")
    # Only the program that runs is imported: some need seconds for the packages that they stand on.
    module = importlib.import_module(f"{__package__}.{program}")
    try:
        result: dict[str, Any] = module.run(request, inputs, output)
    except Refused as refused:
        return {"refused": refused.as_json()}
    return result
