"""What people decided on the digest in a pack, and whether the policy let it go on."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .archive import STEP, Pack
from .people import who
from .reading import Bad


def decided(pack: Pack, release: str, later: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What people said of the release, and whether that was enough when it was rolled out."""
    required, roles, by_role = _rules(pack)
    approved, rejected, broken, went_on = dict[str, str](), False, "", False
    for leaf in later:
        body, kind = leaf["body"], leaf["kind"]
        mine, by = body.get("digest") == release, str(body.get("by"))
        if kind == "promotion.transition":
            if not mine:
                raise Bad(f"leaf {leaf['seq']} goes on with another digest than waited for approval", leaf["seq"])
            if body.get("to") == "ROLLOUT":
                went_on = True
                yield f"Leaf {leaf['seq']}, {leaf['at']}: rolled out, with {len(approved)} approvals of {required}."
                enough = all([*approved.values()].count(role) >= count for role, count in by_role.items())
                if not broken and (len(approved) < required or not enough):
                    asks = f"{required}{f', among them {by_role}' if by_role else ''}"
                    raise Bad(f"it was rolled out after {len(approved)} approvals; the policy asks for {asks}")
                if rejected:
                    yield "ASK WHY: somebody had rejected it, which only stops counting where she has lost her role."
        elif "decision" in body:
            about = "this digest" if mine else "another digest, which does not count"
            yield f"Leaf {leaf['seq']}, {leaf['at']}: {who(pack, by)}: {body['decision']}, {about}."
            match body["decision"] if mine else "":
                case "approve" if body.get("role") in roles:
                    approved[by] = body["role"]
                case "reject":
                    rejected = True
                case "revoke":
                    approved.pop(str(body.get("person")), None)
                case "break-glass":
                    broken = str(body.get("until")) if body.get("open") is True else broken
        elif kind == "promotion.stop":
            yield f"Leaf {leaf['seq']}, {leaf['at']}: {who(pack, by)} asked to end it {body.get('to')}."
    emergency = f" The glass was broken, until {broken}." if broken else ""
    yield f"{len(approved)} people approved just this digest; the policy asks for {required}.{emergency}"
    yield "It was rolled out." if went_on else "It was not rolled out."


def _rules(pack: Pack) -> tuple[int, Sequence[str], Mapping[str, int]]:
    """How many people have to approve, of which roles, and at least how many of a role.

    Raises:
        Bad: the policy does not say so.
    """
    try:
        rules = pack.json("policy.json")["approvals"]
        by_role = {str(role): int(count) for role, count in rules.get("by_role", {}).items()}
        judged = [name for name in sorted(pack.files) if STEP.fullmatch(name) and name.endswith("-gates.json")]
        results = pack.json(judged[-1]).get("results", ()) if judged else ()
        unsure = any(gate["verdict"] == "inconclusive" for gate in results)
        return max(int(rules["required"]), sum(by_role.values()), int(unsure)), list(rules["roles"]), by_role
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Bad("policy.json does not say who has to approve") from None
