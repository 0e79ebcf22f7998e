"""What the CLI shows: tables and a progress line for people, JSON for programs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

FLOW = ["REQUESTED", "SNAPSHOT", "SCAN", "CONVERT", "GATES", "BUILD", "PROVE", "APPROVAL", "ROLLOUT", "LIVE"]
_NO_SIZE = 1e308  # what stands for an error without a size
out = Console()
notes = Console(stderr=True)


def as_json(value: Any) -> None:
    """Plain JSON on standard output."""
    out.file.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    drawn = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        drawn.add_row(*("" if cell is None else str(cell) for cell in row))
    out.print(drawn)


def promotions(items: Sequence[Mapping[str, Any]]) -> None:
    table(
        ("id", "model", "version", "environment", "state", "reason"),
        [[row[key] for key in ("id", "model", "version", "environment", "state", "reason")] for row in items],
    )


def promotion(found: Mapping[str, Any]) -> None:
    """One promotion for people: where it stands, why, what was measured, and what to do next."""
    head = f"promotion {found['id']}: {found['model']} version {found['version']} to {found['environment']}"
    out.print(head, style="bold", highlight=False)
    out.print(f"state     {found['state']}", highlight=False)
    for label, key in (
        ("reason", "reason"),
        ("trouble", "last_error"),
        ("digest", "digest"),
        ("policy", "policy_digest"),
    ):
        if found[key]:
            out.print(f"{label:<9} {found[key]}", highlight=False, markup=False, soft_wrap=True)
    table(("step", "seconds"), [[s["state"], s["seconds"]] for s in found["steps"] if s["seconds"] is not None])
    _evidence(found["evidence"])
    parity(found["parity"])
    _approvals(found)
    for reason in found["progress"].get("inconclusive", ()):
        out.print(f"decide    {reason}", highlight=False, markup=False, soft_wrap=True)
    if found["state"] == "APPROVAL":
        hint = f"headgate approve {found['id']} --digest {found['digest']} --reason '...'"
        out.print(f"next      {hint}", highlight=False, markup=False, soft_wrap=True)
    if found["progress"].get("question"):
        out.print(f"question  {found['progress']['question']}", highlight=False, markup=False)


def _approvals(found: Mapping[str, Any]) -> None:
    """Who said what, what is missing, who cannot say it, and what keeps all of it from being carried out."""
    for word in found["approvals"]:
        back = f" (taken back by {word['revoked_by']})" if word["revoked_by"] else ""
        _line("", f"{word['person']} ({word['role']}): {word['decision']}: {word['reason']}{back}")
    if (glass := found["break_glass"]) is not None:
        _line("GLASS", f"{'broken' if glass['open'] else 'asked for'} by {' and '.join(glass['by'])}, {glass['until']}")
    asked = found["approval"]
    if asked is None:
        return
    if found["digest_parts"] is not None:
        table(("what the digest is over", ""), list(found["digest_parts"].items()))
    roles = [f"{count} of them by {role}" for role, count in asked["missing_roles"].items()]
    if asked["missing"]:
        _line("missing", ", ".join([f"{asked['missing']} of {asked['required']} approvals", *roles]))
    for person, why in asked["excluded"].items():
        _line("excluded", f"{person}: {why}")
    if (cold := asked["frozen"]) is not None:
        _line("frozen", f"until {cold['until'] or 'further notice'}: {cold['reason']}")
    if asked["required"] and found["state"] == "APPROVAL":
        _line("expires", asked["expires_at"])


def _line(label: str, text: str) -> None:
    out.print(f"{label:<9} {text}".lstrip(), highlight=False, markup=False, soft_wrap=True)


def _evidence(evidence: Mapping[str, Any]) -> None:
    rungs = evidence.get("convert", {}).get("rungs", [])
    if rungs:
        cells = [[r["name"], r["status"], r.get("wrong_rows"), r.get("rows"), r.get("largest_error")] for r in rungs]
        table(("conversion", "outcome", "wrong rows", "of", "largest error"), cells)
    _environment(evidence.get("convert", {}).get("environment"))
    results = [result for step in ("gates", "prove") for result in evidence.get(step, {}).get("results", [])]
    if results:
        table(("gate", "verdict", "reason"), [[r["gate"], r["verdict"], r["reason"]] for r in results])
    history = evidence.get("rollout", {}).get("history", [])
    if history:
        last = {look["weight"]: look for look in history}.values()
        cells = [[f"{x['weight']} %", x["requests"], x["failed"], _ms(x["p99_ms"])] for x in last]
        table(("canary", "requests", "failed", "p99"), cells)


def _environment(found: Mapping[str, Any] | None) -> None:
    """What the model was loaded with, and why."""
    if not found:
        return
    whose = "headgate's own"
    if found["own"]:
        whose = f"{found['digest']}, {'used again' if found['reused'] else 'built'} in {found['seconds']} s"
    packages = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
    for label, line in (("packages", f"{whose}: {packages}"), ("because", found["note"])):
        out.print(f"{label:<9} {line}", highlight=False, markup=False, soft_wrap=True)


def parity(kinds: Sequence[Mapping[str, Any]]) -> None:
    """How many rows differ from the native answers, and how far: in ONNX Runtime, and as served."""
    if kinds:
        columns = ("native against", "counts", "rows", "ONNX Runtime", "served", "native refuses")
        table(
            columns,
            [
                [
                    kind["kind"],
                    "yes" if kind["decides"] else "no",
                    kind["onnx"].get("rows"),
                    _differing(kind["onnx"]),
                    _differing(kind["served"]),
                    kind.get("native_refuses") or None,
                ]
                for kind in kinds
            ],
        )


def _differing(side: Mapping[str, Any] | None) -> str:
    if side is None:
        return "-"
    if not side.get("rows"):
        return f"{side.get('left_out', 0)} left out" if side.get("left_out") else "-"
    error = side["largest_error"]
    words = [f"max {error:.2g}"] if error < _NO_SIZE else []
    if side.get("changed_decisions"):
        words.append(f"{side['changed_decisions']} other classes")
    return f"{side['wrong_rows']} ({', '.join(words) or 'not a number'})"


def plan(found: Mapping[str, Any]) -> None:
    """What a promotion would do, for people."""
    head = f"{found['model']} version {found['version']} to {found['environment']}"
    out.print(head, style="bold", highlight=False)
    rules, rollout, data = found["approvals"], found["rollout"], found["data"] or {}
    now, older = found["serves_now"], found["supersedes"]
    roles = "".join(f", {count} of them by {role}" for role, count in rules["by_role"].items())
    approvals = f"{rules['required']} by {' or '.join(rules['roles'])}{roles}, within {rules['expires']}"
    cold = found["frozen"]
    rows = f"{data['rows']} rows of {data['uri']}, {data['digest'] or 'digest not known yet'}" if data else ""
    lines = {
        "refused": found["refused"],
        "waits": "" if found["ready"] else "until MLflow has the version's artifacts",
        "goes": " > ".join(found["states"]),
        "policy": found["policy_digest"],
        "rows": rows or "the model's input example",
        "parity": _words(found["parity"]),
        **{f"gate {at}": _words(gate) for at, gate in enumerate(found["gates"], 1)},
        "approval": approvals,
        "frozen": f"until {cold['until'] or 'further notice'}: {cold['reason']}" if cold else None,
        "rollout": f"{', '.join(f'{step} %' for step in rollout['steps'])}, each for {rollout['soak']}",
        "target": _words(found["target"]),
        "serves": f"version {now['version']} since {now['since']}" if now else "nothing yet",
        "ends": ", ".join(f"promotion {row['id']} of version {row['version']} ({row['state']})" for row in older),
    }
    for label, line in lines.items():
        if line:
            out.print(f"{label:<9} {line}", highlight=False, markup=False, soft_wrap=True)


def backtest(found: Mapping[str, Any]) -> None:
    """What a policy would have decided on past promotions, for people."""
    table(
        ("id", "version", "environment", "ended", "then", "now", "approvals", "why"),
        [
            [
                row["id"],
                row["version"],
                row["environment"],
                row["state"],
                row["then"],
                row["verdict"],
                f"{row['approvals']['given']} of {row['approvals']['required']}",
                "; ".join(row["reasons"]),
            ]
            for row in found["promotions"]
        ],
    )
    counts = ", ".join(f"{count} {verdict}" for verdict, count in found["counts"].items())
    differ = sum(row["differs"] for row in found["promotions"])
    out.print(f"{found['model']}: {counts}; {differ} would have come out otherwise", highlight=False, markup=False)


def _words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value not in (None, {}))


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} ms"


def progress(found: Mapping[str, Any]) -> str:
    """One line that says how far a promotion is."""
    state = found["state"]
    done = FLOW.index(state) if state in FLOW else None
    bar = "" if done is None else "#" * done + "." * (len(FLOW) - 1 - done) + " "
    more = found["last_error"] or found["progress"].get("note") or found["progress"].get("question") or found["reason"]
    weight = found["progress"].get("weight")
    return f"{bar}{state}" + (f" {weight} %" if weight is not None else "") + (f": {more}" if more else "")
