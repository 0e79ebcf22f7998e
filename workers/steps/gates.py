"""GATES: judge the measurements by the policy, beside the live version on the same rows."""

from collections.abc import Mapping
from typing import Any

from app.domain.gates import Rank, Verdict, judge
from app.domain.measured import Measurements
from app.domain.promotion import Done, End, Outcome, State
from app.measurements import freeze
from workers.context import Context
from workers.own_gates import judge_own
from workers.steps.drawing import of_gates
from workers.steps.rows import refused_end
from workers.steps.scoring import Refused, measurements, score


def run(context: Context) -> Outcome:
    """Reject what a gate fails. What could not be measured never passes: the promotion fails. What proves nothing goes
    on, and a person has to approve it, whatever the policy asks for otherwise."""
    scored = score(context)
    if isinstance(scored, Refused):
        return refused_end(context, scored.words)
    measured = measurements(context, scored)
    drawn = of_gates(context, scored, measured)
    return _outcome(measured, judge(measured, context.policy, judge_own), drawn)


def _outcome(measured: Measurements, verdict: Verdict, drawn: Mapping[str, str]) -> Outcome:
    evidence: dict[str, Any] = {
        "results": [result.as_json() for result in verdict.results],
        "verdict": verdict.rank.name.lower(),
        "measurements": freeze(measured),
        "pictures": dict(drawn),
    }
    if verdict.rank is Rank.FAIL:
        return End(State.REJECTED, _reasons(verdict, Rank.FAIL), evidence)
    if verdict.rank is Rank.ERROR:
        remedy = "Mend the policy or its data, then `headgate retry`."
        return End(State.FAILED, f"{_reasons(verdict, Rank.ERROR)}. {remedy}", evidence)
    return Done(evidence)


def _reasons(verdict: Verdict, rank: Rank) -> str:
    return "; ".join(result.reason for result in verdict.results if result.rank is rank)
