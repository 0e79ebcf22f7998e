"""Where an answer leads: OpenAPI links, by which programs find from a promotion what can be done with it."""

from typing import Any

_ID = {"promotion_id": "$response.body#/id"}


def _link(operation: str, description: str, parameters: dict[str, str], body: Any = None) -> dict[str, Any]:
    found = {"operationId": operation, "description": description, "parameters": parameters}
    return {**found, "requestBody": body} if body is not None else found


_WHY = {"reason": "as the link says"}
_PROMOTION = {
    "look": _link("show_promotion", "how it stands now", _ID),
    "watch": _link("watch_promotion", "each change of it", _ID),
    "approve": _link(
        "decide", "approve what it stands at", _ID, {**_WHY, "decision": "approve", "digest": "$response.body#/digest"}
    ),
    "reject": _link(
        "decide", "reject what it stands at", _ID, {**_WHY, "decision": "reject", "digest": "$response.body#/digest"}
    ),
    "go-on": _link("decide_canary", "let its canary go on", _ID, {**_WHY, "decision": "continue"}),
    "roll-back": _link("decide_canary", "roll its canary back", _ID, {**_WHY, "decision": "rollback"}),
    "revoke": _link("revoke", "take one's approval back", _ID, _WHY),
    "break-glass": _link("break_glass", "ask for the emergency way", _ID, {**_WHY, "digest": "$response.body#/digest"}),
    "cancel": _link("cancel", "end it", _ID, _WHY),
    "retry": _link("retry", "try it again where it failed", _ID),
}


def to_promotion(status: int) -> dict[int | str, dict[str, Any]]:
    """For a route that answers with a promotion."""
    return {status: {"links": _PROMOTION}}


def to_proof(status: int) -> dict[int | str, dict[str, Any]]:
    """For a route that answers with a promotion and the proof of a decision on it."""
    proof = _link("proof", "the same proof against the trail as it is then", {"seq": "$response.body#/proof/seq"})
    return {status: {"links": {**_PROMOTION, "prove": proof}}}
