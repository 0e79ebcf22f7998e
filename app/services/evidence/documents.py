"""The files of a pack that programs read. Those that a leaf has a digest of are canonical JSON: hashed as they lie."""

from collections.abc import Mapping
from typing import Any

from app.domain.canonical import canonical
from app.domain.three_way import three_way
from app.services.evidence.dossier import Dossier

KEY_WARNING = """\
These keys come with what they are to check: whoever made the pack chose them, so they prove nothing by themselves.
Compare them with the public key that you were given when the trail began, and give that one to the verifier.

"""


def documents(dossier: Dossier, note: str, keys: list[str]) -> dict[str, bytes]:
    """All files by name but for pictures, the page and the bill of materials; `note` is the signed checkpoint."""
    files = {step.file: canonical(dict(step.evidence)) for step in dossier.steps}
    if dossier.release is not None:
        files["release.json"] = canonical(dict(dossier.release))
    return {
        **files,
        "policy.json": canonical(dict(dossier.policy)),
        "promotion.json": canonical(_promotion(dossier)),
        "gates.json": canonical(gates(dossier)),
        "approvals.json": canonical(decisions(dossier)),
        "leaves.json": canonical(_leaves(dossier)),
        "consistency.json": canonical([{"old": old, "path": path} for old, path in dossier.beginnings.items()]),
        "people.json": canonical(_people(dossier)),
        "checkpoint.txt": note.encode(),
        "public-keys.txt": (KEY_WARNING + "".join(f"{key}\n" for key in keys)).encode(),
    }


def _promotion(dossier: Dossier) -> dict[str, Any]:
    requested, steps = dossier.leaves[0], dossier.steps
    return {
        "id": dossier.id,
        "model": dossier.model,
        "version": dossier.version,
        "environment": dossier.environment,
        "state": dossier.state,
        "requested": {"at": requested.at, "by": requested.body.get("by"), "trigger": requested.body.get("trigger")},
        "policy": dossier.policy_digest,
        "release": dossier.release_digest,
        "steps": [
            {"state": step.state, "entered_at": step.entered_at, "seconds": step.seconds, "evidence": step.file}
            for step in steps
        ],
    }


def gates(dossier: Dossier) -> dict[str, Any]:
    """What was measured and judged, put together from the evidence of the steps."""
    seen = dossier.evidence
    return {
        "gates": seen.get("GATES", {}).get("results", []),
        "served": seen.get("PROVE", {}).get("results", []),
        "parity": three_way({state.lower(): evidence for state, evidence in seen.items()}),
        "measurements": seen.get("GATES", {}).get("measurements"),
    }


def decisions(dossier: Dossier) -> list[dict[str, Any]]:
    """What people decided, as the leaves have it: names and reasons stand there as salted hashes."""
    return [
        {"leaf": leaf.seq, "at": leaf.at, "kind": leaf.kind, **_without(leaf.body, "promotion")}
        for leaf in dossier.leaves
        if "decision" in leaf.body
    ]


def _without(body: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != key}


def _leaves(dossier: Dossier) -> list[dict[str, Any]]:
    return [
        {"seq": leaf.seq, "leaf": leaf.data().decode(), "path": list(path)}
        for leaf, path in zip(dossier.leaves, dossier.proofs, strict=True)
    ]


def _people(dossier: Dossier) -> dict[str, Any]:
    said = {"request_reason": dossier.request_reason} if dossier.request_reason else {}
    return {"openings": [vars(opening) for opening in dossier.openings], **said}
