"""What served at a time, told by the audit trail alone: its leaves, read again up to that moment."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.domain.audit import Leaf
from app.domain.promotion import State

_SAID = ("approval", "approval.revoked", "break-glass", "canary.decision")
_DONE = ("effect.intended", "effect.done", "canary.weight")
ABOUT = ("promotion.requested", "promotion.transition", *_SAID, *_DONE)
"""The kinds of leaves that say what serves, and why."""
STABLE, CANARY = "stable", "canary"


@dataclass
class Story:
    """One promotion as its leaves tell it. Each of `decisions` and `evidence` names its leaf, so that it can be
    proved."""

    promotion: int
    model: str
    version: str
    environment: str
    requested_by: str | None
    policy: str
    digest: str | None = None
    decisions: list[dict[str, Any]] = field(default_factory=list)
    evidence: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class Serving:
    """One release that answered: its share of the traffic in percent, since when, and the leaf that says so.

    `intended` is a share that was announced, and of which the trail does not say yet whether it was given: as long as
    nobody knows, either may be the truth.
    """

    story: Story
    role: str
    weight: int
    since: str
    leaf: int
    intended: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """For answers."""
        own = {"role": self.role, "weight": self.weight, "since": self.since, "leaf": self.leaf}
        return {**own, "intended": self.intended, **vars(self.story)}


def serving(leaves: Iterable[Leaf]) -> list[Serving]:
    """Who served when the last of these leaves, in order, had been written; stable before canary, by environment.

    A model that had a stable release kept it until another one was LIVE, whatever became of its canaries.
    """
    stories, stable, canary = dict[int, Story](), dict[str, Serving](), dict[str, Serving]()
    for leaf in leaves:
        body = leaf.body
        if leaf.kind == "promotion.requested":
            named = {key: body[key] for key in ("promotion", "model", "version", "environment", "policy")}
            stories[body["promotion"]] = Story(**named, requested_by=body["by"])
        elif (story := stories.get(body.get("promotion", 0))) is None:
            continue
        elif leaf.kind == "promotion.transition":
            _note_step(story, leaf)
            _follow(story, leaf, stable, canary)
        elif leaf.kind in _DONE:
            _move(story, leaf, canary)
        else:
            _note_word(story, leaf)
    return list(_shared(stable, canary))


def _move(story: Story, leaf: Leaf, canary: dict[str, Serving]) -> None:
    """Traffic is about to be moved, or was."""
    weight, before = leaf.body["weight"], canary.get(story.environment)
    if leaf.kind == "effect.intended" and before is not None:
        before.intended = {"weight": weight, "since": leaf.at, "leaf": leaf.seq}
    elif before is not None and before.weight == weight:
        before.intended = None
    elif leaf.kind != "effect.intended":
        canary[story.environment] = Serving(story, CANARY, weight, leaf.at, leaf.seq)


def _note_word(story: Story, leaf: Leaf) -> None:
    """What a person said; what one took back stays, and says so."""
    keys = ("by", "role", "decision", "digest", "reason", "weight", "person")
    said = {key: leaf.body[key] for key in keys if key in leaf.body}
    if leaf.kind == "approval.revoked":
        for word in story.decisions:
            if word["by"] == said["person"] and word["decision"] in ("approve", "break-glass"):
                word.setdefault("taken_back", leaf.seq)
    story.decisions.append({**said, "at": leaf.at, "leaf": leaf.seq})


def _note_step(story: Story, leaf: Leaf) -> None:
    body: Mapping[str, Any] = leaf.body
    story.digest = body["digest"] or story.digest
    story.evidence[body["from"]] = {"digest": body["evidence"], "leaf": leaf.seq}


def _follow(story: Story, leaf: Leaf, stable: dict[str, Serving], canary: dict[str, Serving]) -> None:
    place, after = story.environment, leaf.body["to"]
    if after == State.ROLLOUT.value:
        canary[place] = Serving(story, CANARY, 0, leaf.at, leaf.seq)
    elif leaf.body["from"] == State.ROLLOUT.value:
        canary.pop(place, None)
        if after == State.LIVE.value:
            stable[place] = Serving(story, STABLE, 100, leaf.at, leaf.seq)


def _shared(stable: Mapping[str, Serving], canary: Mapping[str, Serving]) -> Iterator[Serving]:
    for place in sorted({*stable, *canary}):
        moved = canary[place].weight if place in canary else 0
        if place in stable:
            stable[place].weight = 100 - moved
            yield stable[place]
        if place in canary and (moved or canary[place].intended is not None):
            yield canary[place]
