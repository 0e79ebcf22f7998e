"""The page of a pack for people: one HTML file that needs nothing else, and runs nothing.

All that it shows came from users and models: every value is escaped, and characters that nobody can see, or that turn
the direction of writing, are written out.
"""

import base64
import hashlib
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, FileSystemLoader
from markupsafe import Markup

from app.domain.audit import Leaf
from app.domain.promotion import ENDED, State
from app.services.evidence import charts
from app.services.evidence.documents import decisions, gates
from app.services.evidence.dossier import Dossier

_TEMPLATES = Path(__file__).parent
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_TOKEN_DIGITS = 64
PARTS = {
    "tree": "the model's files: SHA-256 of model-files.json",
    "onnx": "the converted model: SHA-256 of the file model.onnx",
    "config": "how Triton serves it: SHA-256 of config.pbtxt",
    "image": "the image, or without one the served files: SHA-256 of served-files.json",
    "policy": "SHA-256 of policy.json",
    "evidence": "SHA-256 over what the steps from SNAPSHOT to PROVE left",
}
TITLES = {
    "parity": "Native model against ONNX Runtime, row by row",
    "latency": "Latency in ONNX Runtime",
    "served-latency": "Latency as served",
}


def page(dossier: Dossier, files: Mapping[str, bytes], people: bool) -> str:
    """The HTML of the page beside these files, from which it takes its pictures."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=ChainableUndefined, finalize=shown
    )
    environment.trim_blocks = environment.lstrip_blocks = True
    style = (_TEMPLATES / "page.css").read_text(encoding="utf-8")
    weights = charts.weights(dossier)
    history = _history(dossier)
    return environment.get_template("page.html.j2").render(
        it=dossier,
        style=Markup(style),  # noqa: S704 -- our own file, and the policy of the page holds its hash
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        tone=_tone(dossier.state),
        requested=dossier.leaves[0],
        last=dossier.leaves[-1],
        ended=dossier.state in ENDED,
        reason=next((leaf.body["reason"] for leaf in [*dossier.transitions()][::-1]), ""),
        parts=[(name, value, PARTS.get(name, "")) for name, value in (dossier.release or {}).items()],
        decisions=decisions(dossier),
        approvers=_standing(dossier, "approve"),
        breakers=_standing(dossier, "break-glass"),
        gates=gates(dossier),
        pictures=[*_pictures(files)],
        weights=weights,
        traffic=charts.traffic(weights),
        latency=charts.latency(history),
        looks=list({look["weight"]: look for look in history}.values()),
        digests={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        trail=[(leaf, _told(dossier, leaf)) for leaf in dossier.leaves],
        because=_known(dossier, dossier.leaves[0].body.get("reason")) or dossier.request_reason,
        people=people,
        known=lambda value: _known(dossier, value),
    )


def _known(dossier: Dossier, value: Any) -> Any:
    """What a leaf's value stands for, in words where that is not known."""
    opened = dossier.opened(value)
    kind, _, digits = opened.partition(":") if opened == value and isinstance(value, str) else ("", "", "")
    if len(digits) != _TOKEN_DIGITS or kind not in ("person", "said"):
        return opened
    return f"somebody ({digits[:8]})" if kind == "person" else "(words that are not told)"


def _standing(dossier: Dossier, decision: str) -> list[str]:
    """Who decided so on the digest, and has not taken that back."""
    found: dict[str, str] = {}
    for said in decisions(dossier):
        if (said["decision"], said.get("digest")) == (decision, dossier.release_digest):
            found[said["by"]] = shown(_known(dossier, said["by"]))
        elif said["decision"] == "revoke":
            found.pop(str(said.get("person")), None)
    return sorted(found.values())


def shown(value: Any) -> Any:
    """A value as it is put on the page: what cannot be seen is written out."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return "".join(
        f"\\u{{{ord(letter):x}}}" if unicodedata.category(letter) in _HIDDEN and letter != "\n" else letter
        for letter in value
    )


def _tone(state: str) -> str:
    if state == State.LIVE.value:
        return "good"
    return "bad" if state in ENDED else "open"


def _history(dossier: Dossier) -> list[Mapping[str, Any]]:
    """What was seen of the canary, look by look."""
    return [look for look in dossier.evidence.get("ROLLOUT", {}).get("history", ()) if look.get("weight")]


def _pictures(files: Mapping[str, bytes]) -> Iterator[tuple[str, str]]:
    """Title and data URI of each."""
    for name, data in sorted(files.items()):
        if name.startswith("pictures/"):
            plain = name.removeprefix("pictures/").removesuffix(".png")
            title = TITLES.get(plain, f"Groups of rows, gate {plain.rpartition('-')[2]}")
            yield title, f"data:image/png;base64,{base64.b64encode(data).decode()}"


def _told(dossier: Dossier, leaf: Leaf) -> str:
    """One leaf in words."""
    body = leaf.body
    by, reason = _known(dossier, body.get("by")), _known(dossier, body.get("reason")) or ""
    match leaf.kind:
        case "promotion.requested":
            return f"requested{f' by {by}' if by else ''}: {body['model']} {body['version']} to {body['environment']}"
        case "promotion.transition":
            return f"{body['from']} \N{RIGHTWARDS ARROW} {body['to']}{f': {reason}' if reason else ''}"
        case "canary.weight":
            return f"{body['weight']} % of the traffic to {body['release']}"
        case "effect.intended" | "effect.done" | "effect.failed":
            how = {"effect.intended": "announced", "effect.done": "done"}.get(leaf.kind, "failed, perhaps half done")
            return f"{body.get('weight', '')} % of the traffic to {body.get('release', '')}: {how}"
        case "registry.intended":
            moves = [f"{write['operation']} {write.get('alias') or write.get('stage')}" for write in body["writes"]]
            return f"MLflow is to be told: {', '.join(moves)}"
        case "promotion.stop":
            return f"asked to end {body['to']}{f' by {by}' if by else ''}: {reason}"
        case "approval" | "canary.decision":
            return f"{by} ({body.get('role', '')}): {body['decision']}: {reason}"
    return f"{leaf.kind}{f' by {by}' if by else ''}{f': {reason}' if reason else ''}"
