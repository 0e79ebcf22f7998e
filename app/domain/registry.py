"""What MLflow's registry says of a model, and which net changes ask for a promotion."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.domain.policy import Policy

ASK_TAG = "headgate.to"
NO_STAGE = "None"
MAX_NAME = 255


@dataclass(frozen=True)
class ModelView:
    """One registered model as Headgate watches it: what could ask for a promotion and nothing else.

    `aliases` maps an alias to its version, `stages` a version to its stage, `asks` a version to the value of its
    `headgate.to` tag. Versions are MLflow's decimal strings.
    """

    name: str
    aliases: Mapping[str, str] = field(default_factory=dict)
    stages: Mapping[str, str] = field(default_factory=dict)
    asks: Mapping[str, str] = field(default_factory=dict)

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
