"""SCAN: a maintained scanner looks at every file; a finding, an error or a time-out blocks."""

from datetime import timedelta

from app.domain.promotion import Done, End, Outcome, State
from app.ports import SandboxJob
from workers.context import Context

TIMEOUT = timedelta(minutes=2)


def run(context: Context) -> Outcome:
    """Reject a model with findings, or one that could not be scanned as a whole."""
    inputs = {"model": context.plant.store.tree(context.step(State.SNAPSHOT)["tree"])}
    with context.scratch("scan") as output:
        result = context.plant.sandbox.run(SandboxJob("scan", inputs, {}, output, TIMEOUT))
    findings, errors = list(result["findings"]), list(result["errors"])
    evidence = {"findings": findings, "errors": errors, "scanned": result["scanned"]}
    if findings:
        first = findings[0]
        reason = f"the scanner found {first['reason']} in {first['file']} ({len(findings)} findings)"
        remedy = "Save the model without code that runs on loading, for instance with skops."
        return End(State.REJECTED, f"{reason}. {remedy}", evidence)
    if errors:
        return End(State.REJECTED, f"The model could not be scanned as a whole: {errors[0]}", evidence)
    return Done(evidence)
