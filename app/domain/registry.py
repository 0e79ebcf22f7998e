"""What MLflow's registry says of a model, and which net changes ask for a promotion."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.domain.policy import Policy

ASK_TAG = "headgate.to"
NO_STAGE = "None"
MAX_NAME = 255
# How a change was seen.
WEBHOOK, POLL, OWN = "webhook", "poll", "headgate"


@dataclass(frozen=True)
class ModelView:
    """One registered model as Headgate watches it: what could ask for a promotion and nothing else.

    `aliases` maps an alias to its version, `stages` a version to its stage, `asks` a version to the value of its
    `headgate.to` tag. Versions are MLflow's decimal strings. `versions` are those that there are, as far as the reading
    that made this view has told them: they ask for nothing, and no two views differ by them.
    """

    name: str
    aliases: Mapping[str, str] = field(default_factory=dict)
    stages: Mapping[str, str] = field(default_factory=dict)
    asks: Mapping[str, str] = field(default_factory=dict)
    versions: frozenset[str] = field(default=frozenset(), compare=False)

    def as_json(self) -> dict[str, Any]:
        return {"aliases": dict(self.aliases), "stages": dict(self.stages), "asks": dict(self.asks)}

    @staticmethod
    def from_json(name: str, value: Mapping[str, Any]) -> "ModelView":
        return ModelView(name, dict(value["aliases"]), dict(value["stages"]), dict(value["asks"]))


def can_be_watched(model: str) -> bool:
    """Whether Headgate can keep a model's name; no model of another name could be served anyway."""
    return 0 < len(model) <= MAX_NAME and "\0" not in model


@dataclass(frozen=True)
class Change:
    """One net difference between two views: `field` is `alias:<name>`, `stage` or `tag:headgate.to`.

    For an alias `version` is the one it points to now (None where it was removed) and `before` the one it left.
    """

    model: str
    field: str
    version: str | None
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Event:
    """What a webhook of MLflow says of one watched field: `version` is the one that a tag belongs to (None for an
    alias), `value` what the field holds since then, None where it was removed."""

    field: str
    version: str | None
    value: str | None


def event_of(change: Change) -> Event | None:
    """The event that MLflow sends for such a change; None where it has none, as for stages."""
    if change.field == "stage":
        return None
    return Event(change.field, None if change.field.startswith("alias:") else change.version, change.after)


def announced(change: Change, before: ModelView | None, after: ModelView | None) -> bool:
    """Whether MLflow sends a webhook when it makes this change.

    It sends none for what goes with a version, a model or a model's former name: a model that was not there before may
    have been renamed.
    """
    if event_of(change) is None or before is None or after is None:
        return False
    if change.after is not None:
        return True
    return (change.before if change.field.startswith("alias:") else change.version) in after.versions


@dataclass(frozen=True)
class Ask:
    """A change that asks for a promotion of `version` to `environment`."""

    version: str
    environment: str
    change: Change


@dataclass(frozen=True)
class Withdrawal:
    """A change that takes back what asked for `version` in `environment`."""

    version: str
    environment: str
    change: Change


def diff(before: ModelView | None, after: ModelView | None) -> list[Change]:
    """The net changes from one view to the next; None stands for a model that does not exist."""
    old = before or ModelView((after or _nobody()).name)
    new = after or ModelView(old.name)
    return [*_alias_changes(old, new), *_version_changes(old, new)]


def _nobody() -> ModelView:
    return ModelView("")


def _alias_changes(old: ModelView, new: ModelView) -> Iterator[Change]:
    for alias in sorted(old.aliases.keys() | new.aliases.keys()):
        was, now = old.aliases.get(alias), new.aliases.get(alias)
        if was != now:
            yield Change(new.name, f"alias:{alias}", now, was, now)


def _version_changes(old: ModelView, new: ModelView) -> Iterator[Change]:
    for version in sorted(old.stages.keys() | new.stages.keys(), key=_number):
        was, now = old.stages.get(version, NO_STAGE), new.stages.get(version, NO_STAGE)
        if was != now:
            yield Change(new.name, "stage", version, was, now)
    for version in sorted(old.asks.keys() | new.asks.keys(), key=_number):
        asked, asks = old.asks.get(version), new.asks.get(version)
        if asked != asks:
            yield Change(new.name, f"tag:{ASK_TAG}", version, asked, asks)


def _number(version: str) -> tuple[int, str]:
    return (int(version), "") if version.isdecimal() else (0, version)


def interpret(change: Change, policy: Policy) -> tuple[Withdrawal | None, Ask | None]:
    """What a change means under a policy: what it takes back and what it asks for, either of them None.

    A moved alias does both: it withdraws the version that it left and asks for the one it points to now.
    """
    if change.field.startswith("alias:"):
        environment = policy.environment_of_alias(change.field.removeprefix("alias:"))
        return _both(change, environment, change.before, environment, change.after)
    if change.field == "stage":
        left, entered = (policy.environment_of_stage(value or NO_STAGE) for value in (change.before, change.after))
        return _both(change, left, change.version, entered, change.version)
    left, entered = (value if value in policy.environments else None for value in (change.before, change.after))
    return _both(change, left, change.version, entered, change.version)


def _both(
    change: Change, left: str | None, old: str | None, entered: str | None, new: str | None
) -> tuple[Withdrawal | None, Ask | None]:
    return (
        Withdrawal(old, left, change) if left and old else None,
        Ask(new, entered, change) if entered and new else None,
    )
