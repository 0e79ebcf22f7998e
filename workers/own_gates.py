"""Gates of the installation's own: entry points of the group `headgate.gates`, from measurements to a verdict.

An entry point names a callable `gate(measurements, options)`. `measurements` is the JSON form of
app.domain.measured.Measurements, `options` what the policy gives; both are its own copies. It returns a mapping with
`verdict` ("pass", "fail" or "inconclusive"), `reason`, and where there are such numbers `measured` and `limit`. It runs
in the worker: it is as trusted as Headgate itself, and should neither wait nor ask anybody. See docs/gates.md.
"""

import json
import math
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from app.domain.gates import GateResult, Rank
from app.domain.measured import Measurements
from app.domain.policy import OwnGate
from app.measurements import freeze

GROUP = "headgate.gates"
_RANKS = {"pass": Rank.PASS, "fail": Rank.FAIL, "inconclusive": Rank.INCONCLUSIVE}


def judge_own(gate: OwnGate, measured: Measurements) -> GateResult:
    """The gate's answer; whatever goes wrong with it is an ERROR, never a pass."""
    name = f"own {gate.name}"
    found = [point for point in entry_points(group=GROUP) if point.name == gate.name]
    if len(found) != 1:
        reason = f"this worker has {len(found)} gates named {gate.name}: install the package that brings it, once"
        return GateResult(name, Rank.ERROR, None, None, reason)
    try:
        answer = found[0].load()(freeze(measured), json.loads(json.dumps(dict(gate.options))))
        return _result(name, answer)
    except (Exception, SystemExit) as error:  # noqa: BLE001 -- somebody else's code: whatever it raises proves nothing
        reason = f"the gate {gate.name} broke: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return GateResult(name, Rank.ERROR, None, None, reason)


def _result(name: str, answer: Mapping[str, Any]) -> GateResult:
    measured, limit = (_number(answer.get(key)) for key in ("measured", "limit"))
    return GateResult(name, _RANKS[answer["verdict"]], measured, limit, str(answer["reason"])[:1000])


def _number(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is no number that can be recorded")
    return number
