"""What a model must satisfy to be promoted: the policy as plain values, with the documented default."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from app.domain.freeze import Freeze


@dataclass(frozen=True)
class Triggers:
    """What in MLflow asks for this environment: an alias, and for the legacy UI a stage."""

    alias: str | None
    stage: str | None = None


@dataclass(frozen=True)
class Data:
    """The judging rows, which the model did not choose: a CSV or Parquet file, of which `rows` are drawn by `seed`.
    With a `digest` it must be just that file. Without judging rows the input example is used."""

    uri: str
    label: str
    rows: int = 5000
    seed: int = 20240229
    digest: str | None = None


@dataclass(frozen=True)
class Parity:
    """How far ONNX and served answers may lie from the native ones: |a-b| <= atol + rtol*|b|, row by row."""

    rtol: float = 1e-4
    atol: float = 1e-5
    max_wrong_rows: int = 0


@dataclass(frozen=True)
class MetricGate:
    """A bound on one metric over the judging rows."""

    name: str
    max: float | None = None
    min: float | None = None
    kind: Literal["metric"] = "metric"


@dataclass(frozen=True)
class ChampionGate:
    """How much worse than the live version a metric may be, as a fraction of the live version's value."""

    name: str
    max_regression: float
    kind: Literal["champion"] = "champion"


@dataclass(frozen=True)
class LatencyGate:
    """A bound on the 99th percentile of one inference with `batch` rows, in milliseconds."""

    p99_ms: float
    batch: int = 1
    kind: Literal["latency"] = "latency"


@dataclass(frozen=True)
class SlicesGate:
    """How much worse the worst group may be than all rows together. A group shares its values in all columns of `by`,
    as in SQL; one of fewer than `min_rows` rows is shown and not judged: few rows prove nothing."""

    by: tuple[str, ...]
    name: str
    max_ratio: float
    min_rows: int = 50
    kind: Literal["slices"] = "slices"


@dataclass(frozen=True)
class SchemaGate:
    """Whoever can ask the live version can ask the new one the same, and read its answer."""

    kind: Literal["schema"] = "schema"


@dataclass(frozen=True)
class RobustnessGate:
    """How far answers may move when every floating-point input moves by `nudge` of its column's standard deviation, up
    or down by chance: on average by `max_change` of the predictions' own standard deviation, and for classes in that
    share of the answers. Answers must stay finite for inputs far beyond all that was seen, too."""

    max_change: float
    nudge: float = 0.01
    kind: Literal["robustness"] = "robustness"


@dataclass(frozen=True)
class OwnGate:
    """A gate of the installation's own: the entry point `name` of the group `headgate.gates`, with its options."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["own"] = "own"


Gate = MetricGate | ChampionGate | LatencyGate | SlicesGate | SchemaGate | RobustnessGate | OwnGate


@dataclass(frozen=True)
class Approvals:
    """Who has to agree, and for how long the question stands and each approval counts: `required` people of these
    `roles`, at least so many of a role as `by_role` says. Neither who requested the promotion nor who trained the
    version counts. With `fresh` one must have authenticated so recently before one approves."""

    required: int = 1
    roles: tuple[str, ...] = ("reviewer",)
    by_role: Mapping[str, int] = field(default_factory=dict)
    expires: timedelta = timedelta(hours=72)
    prevent_self_review: bool = True
    exclude_trainer: bool = True
    fresh: timedelta | None = None


@dataclass(frozen=True)
class BreakGlass:
    """The emergency way: two people who ask for it `within` this time of each other replace missing approvals and pass
    a freeze, for a rollout that begins before the first one's word is that old."""

    within: timedelta = timedelta(minutes=30)


@dataclass(frozen=True)
class Guardrails:
    """What the canary's own traffic must satisfy: share of failed requests (0..1) and p99 in milliseconds."""

    error_rate: float = 0.01
    p99_ms: float = 100.0
    min_requests: int = 20


@dataclass(frozen=True)
class Rollout:
    """Percentages of traffic in ascending order, ending at 100, and how long each is watched."""

    steps: tuple[int, ...] = (10, 50, 100)
    soak: timedelta = timedelta(seconds=30)
    guardrails: Guardrails = Guardrails()
    max_wait: timedelta = timedelta(minutes=10)


@dataclass(frozen=True)
class Target:
    """Where the release runs. `kind` None takes the service's own setting."""

    kind: Literal["process", "docker"] | None = None
    instance: Literal["cpu", "gpu"] = "cpu"
    count: int = 1


@dataclass(frozen=True)
class EnvironmentPolicy:
    """All rules for one model in one environment."""

    triggers: Triggers
    data: Data | None = None
    parity: Parity = Parity()
    gates: tuple[Gate, ...] = ()
    approvals: Approvals = Approvals()
    freeze: tuple[Freeze, ...] = ()
    break_glass: BreakGlass | None = BreakGlass()
    rollout: Rollout = Rollout()
    target: Target = Target()


@dataclass(frozen=True)
class Policy:
    """The rules for one model, by environment."""

    model: str
    environments: Mapping[str, EnvironmentPolicy] = field(default_factory=dict)

    def environment_of_alias(self, alias: str) -> str | None:
        """The environment that `alias` asks for, if any."""
        return next((name for name, env in self.environments.items() if env.triggers.alias == alias), None)

    def environment_of_stage(self, stage: str) -> str | None:
        """The environment that the legacy stage asks for, if any."""
        return next((name for name, env in self.environments.items() if env.triggers.stage == stage), None)


def default_policy(model: str) -> Policy:
    """The documented policy of a model that has no file: parity and latency gates on the input example,
    one approval by a reviewer for production and none for staging."""
    gates = (LatencyGate(p99_ms=100.0),)
    return Policy(
        model=model,
        environments={
            "staging": EnvironmentPolicy(
                triggers=Triggers(alias="to-staging", stage="Staging"), gates=gates, approvals=Approvals(required=0)
            ),
            "production": EnvironmentPolicy(triggers=Triggers(alias="to-production", stage="Production"), gates=gates),
        },
    )
