"""The story in a pack: its steps, and that what was approved is what the pack shows."""

from collections.abc import Iterator, Mapping
from typing import Any

from .archive import STEP, Pack
from .decisions import decided
from .reading import Bad, digest_of, json_of

_JUDGED = ("BUILD", "CONVERT", "GATES", "PROVE", "SCAN", "SNAPSHOT")


def check_story(pack: Pack) -> Iterator[str]:
    """The steps follow each other without a gap, and what each left is what its leaf says."""
    state, number, held = "REQUESTED", 0, 0
    kept = {int(found[1]): (found[2], name) for name in pack.files if (found := STEP.fullmatch(name))}
    for leaf in pack.leaves:
        if leaf["kind"] != "promotion.transition":
            continue
        body, number = leaf["body"], number + 1
        if body.get("from") != state:
            raise Bad(
                f"leaf {leaf['seq']} goes on from {body.get('from')}, the one before came to {state}", leaf["seq"]
            )
        step, name = kept.pop(number, ("", ""))
        if name and (step, digest_of(pack.files[name])) != (str(state).lower(), body.get("evidence")):
            raise Bad(f"{name} is not what leaf {leaf['seq']} says that {state} left", leaf["seq"])
        state, held = body.get("to"), held + bool(name)
    if kept:
        raise Bad(f"no leaf is about {min(name for _, name in kept.values())}")
    if pack.predicate.get("state") != state:
        raise Bad(f"the statement says {str(pack.predicate.get('state'))[:40]}, the leaves came to {state}")
    yield f"The promotion came to {state} in {number} steps; the evidence of {held} of them is in the pack, unchanged."


def check_release(pack: Pack) -> Iterator[str]:
    """What was approved is what the pack shows: parts, policy, evidence, and who approved just that digest."""
    last = [leaf for leaf in pack.leaves if leaf["kind"] == "promotion.transition"]
    again = max((leaf["seq"] for leaf in pack.leaves if leaf["kind"] == "promotion.retry"), default=0)
    named = [leaf for leaf in pack.leaves if leaf["seq"] >= again and isinstance(leaf["body"].get("policy"), str)]
    policy = digest_of(pack.files.get("policy.json", b""))
    if not named or any(leaf["body"]["policy"] != policy for leaf in named):
        raise Bad("policy.json is not the policy that the leaves name")
    yield f"It was judged by the policy {policy}."
    asked = [leaf for leaf in last if leaf["body"].get("to") == "APPROVAL" and leaf["seq"] > again]
    if not asked:
        yield "It never came to a digest that could be approved."
        if "release.json" in pack.files or pack.predicate.get("release"):
            raise Bad("the pack shows a release that no leaf names")
        return
    release, parts = digest_of(pack.files.get("release.json", b"")), pack.json("release.json")
    if asked[-1]["body"].get("digest") != release or pack.predicate.get("release") != release:
        raise Bad("release.json is not what waited for approval", asked[-1]["seq"])
    if asked[-1]["body"].get("parts", parts) != parts or not isinstance(parts, dict):
        raise Bad("the parts of the release are not those of its leaf", asked[-1]["seq"])
    _check_parts(pack, parts, asked[-1])
    yield f"What was asked to be approved is {release}, made of {', '.join(sorted(parts))}."
    yield from decided(pack, release, [leaf for leaf in pack.leaves if leaf["seq"] > asked[-1]["seq"]])


def _check_parts(pack: Pack, parts: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Each part is what the evidence, the policy and the leaf say of it, and what the statement is about."""
    number = sum(leaf["kind"] == "promotion.transition" and leaf["seq"] <= asked["seq"] for leaf in pack.leaves)
    files = {}
    for back, state in enumerate(("PROVE", "BUILD", "GATES", "CONVERT", "SCAN", "SNAPSHOT")):
        files[state] = pack.files.get(f"evidence/{number - back:03}-{state.lower()}.json", b"null")
    seen = {state: json_of(data, f"the evidence of {state}") or {} for state, data in files.items()}
    together = b",".join(b'"%s":%s' % (state.encode(), files[state]) for state in _JUDGED)
    expected = {
        **{key: asked["body"].get(key) for key in ("model", "version", "environment", "policy")},
        "tree": seen["SNAPSHOT"].get("tree"),
        "onnx": seen["CONVERT"].get("onnx"),
        "config": seen["BUILD"].get("config"),
        "image": seen["BUILD"].get("image") or seen["BUILD"].get("repository"),
        "evidence": digest_of(b"{%s}" % together),
    }
    for name, value in expected.items():
        if parts.get(name) != value:
            raise Bad(f"the release's {name} is not what the pack's evidence says")
    shown = {"model": "tree", "onnx": "onnx", "config": "config", "image": "image"}
    for subject, part in shown.items():
        said = pack.predicate["subjects"].get(subject)
        if said is not None and f"sha256:{said}" != parts[part]:
            raise Bad(f"the statement is about another {subject}")
    for name, part in (("model-files.json", "tree"), ("config.pbtxt", "config")):
        if name in pack.files and digest_of(pack.files[name]) != parts[part]:
            raise Bad(f"{name} is not what was approved")
