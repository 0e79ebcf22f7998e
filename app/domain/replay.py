"""What served at a time, told by the audit trail alone: its leaves, read again up to that moment."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.domain.audit import Leaf
from app.domain.promotion import State

ABOUT = ("promotion.requested", "promotion.transition", "approval", "canary.weight", "canary.decision")
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
    """One release that answered: its share of the traffic in percent, since when, and the leaf that says so."""

    story: Story
    role: str
    weight: int
    since: str
    leaf: int

    def as_json(self) -> dict[str, Any]:
        """For answers."""
        return {"role": self.role, "weight": self.weight, "since": self.since, "leaf": self.leaf, **vars(self.story)}


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
        elif leaf.kind == "canary.weight":
            canary[story.environment] = Serving(story, CANARY, body["weight"], leaf.at, leaf.seq)
        else:
            keys = ("by", "role", "decision", "digest", "reason", "weight")
            said = {key: body[key] for key in keys if key in body}
            story.decisions.append({**said, "at": leaf.at, "leaf": leaf.seq})
    return list(_shared(stable, canary))


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
        if place in canary and moved:
            yield canary[place]
