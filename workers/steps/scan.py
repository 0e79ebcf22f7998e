"""SCAN: two maintained scanners, a list of allowed imports and rules for formats look at every file; a finding, an
error, an unknown kind of file or a time-out blocks. They are tripwires: the sandbox is the boundary."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from app.domain.errors import Rejected
from app.domain.promotion import Done, End, Outcome, State
from app.ports import SandboxJob
from workers.context import Context

TIMEOUT = timedelta(minutes=2)
_FINDING = ("file", "severity", "reason", "scanner")
_REMEDIES = {"headgate": "Save the model without that."}
_REMEDY = "Save the model without code that runs on loading, for instance with skops."
_LONGEST = 500


def run(context: Context) -> Outcome:
    """Reject a model with findings, or one that could not be scanned as a whole."""
    inputs = {"model": context.plant.store.tree(context.step(State.SNAPSHOT)["tree"])}
    with context.scratch("scan") as output:
        result = context.plant.sandbox.run(SandboxJob("scan", inputs, {}, output, TIMEOUT))
    evidence = {**_evidence(result), "sandbox": context.plant.sandbox.layer()}
    findings, errors = evidence["findings"], evidence["errors"]
    if findings:
        first = findings[0]
        reason = f"{first['scanner']} found {first['reason']} in {first['file']} ({len(findings)} findings)"
        return End(State.REJECTED, f"{reason}. {_REMEDIES.get(first['scanner'], _REMEDY)}", evidence)
    if errors:
        return End(State.REJECTED, f"The model could not be scanned as a whole: {errors[0]}", evidence)
    return Done(evidence)


def _evidence(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the program says, as far as it has the form that it should have: the model may have had its hands in it.

    Raises:
        Rejected: it has another form.
    """
    try:
        return {
            "findings": [{key: _plain(finding[key]) for key in _FINDING} for finding in result["findings"]],
            "errors": [_plain(error) for error in result["errors"]],
            "scanned": int(result["scanned"]),
            "alone": {str(name): int(count) for name, count in result["alone"].items()},
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Rejected(
            "The scan gave an answer of an odd form.", "Log the model again; if this repeats, look into its files."
        ) from error


def _plain(text: Any) -> str:
    if not isinstance(text, str):
        raise TypeError(text)
    return "".join(character if " " <= character <= "~" else "?" for character in text)[:_LONGEST]
