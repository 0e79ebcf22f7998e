"""The shape of a policy file: pydantic models with every bound, from which its JSON Schema is made, too."""

import re
from datetime import date, timedelta
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, PlainSerializer, field_validator
from pydantic import model_validator as model_check

from app.domain.canonical import canonical
from app.domain.freeze import minutes
from app.domain.places import place_of

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\Z")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST = timedelta(days=36_500)
# MLflow keeps these for itself.
_RESERVED = re.compile(r"latest|v\d+", re.IGNORECASE)


def parse_duration(value: object) -> timedelta:
    """Read `500ms`, `30s`, `10m`, `72h` or `3d`.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, timedelta):
        return value
    match = _DURATION.match(str(value).strip())
    if match is None:
        raise ValueError("write a duration as a number and a unit: 500ms, 30s, 10m, 72h or 3d")
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds > _LONGEST.total_seconds():
        raise ValueError("write a duration of less than 100 years")
    return timedelta(seconds=seconds)


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(lambda value: f"{value.total_seconds():g}s", return_type=str, when_used="json"),
    Field(json_schema_extra={"type": "string", "examples": ["30s", "72h"]}),
]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=200)]
Alias = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=200)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Triggers(_Strict):
    alias: Alias | None = None
    stage: Literal["Staging", "Production"] | None = None


class _Data(_Strict):
    uri: str = Field(min_length=1, max_length=2000, examples=["holdout.csv", "s3://rows/holdout.parquet"])
    label: str = Field(min_length=1)
    rows: int = Field(5000, ge=1, le=1_000_000)
    seed: int = Field(20240229, ge=0, lt=2**32)
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None

    @field_validator("uri")
    @classmethod
    def _names_a_place(cls, uri: str) -> str:
        place_of(uri)
        return uri


class _Parity(_Strict):
    rtol: Annotated[float, Field(ge=0, le=0.1)] = 1e-4
    atol: Annotated[float, Field(ge=0, le=0.1)] = 1e-5
    max_wrong_rows: int = Field(0, ge=0)


class _MetricGate(_Strict):
    kind: Literal["metric"]
    name: Literal["rmse", "mae", "r2", "accuracy", "f1_macro"]
    max: Finite | None = None
    min: Finite | None = None

    @model_check(mode="after")
    def _bounded(self) -> "_MetricGate":
        if self.max is None and self.min is None:
            raise ValueError("give max or min, otherwise the gate cannot fail")
        return self


class _ChampionGate(_Strict):
    kind: Literal["champion"]
    name: Literal["rmse", "mae", "r2", "accuracy", "f1_macro"]
    max_regression: Annotated[float, Field(ge=0, le=1)]


class _LatencyGate(_Strict):
    kind: Literal["latency"]
    p99_ms: Positive
    batch: int = Field(1, ge=1, le=10_000)


class _SlicesGate(_Strict):
    kind: Literal["slices"]
    by: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(min_length=1, max_length=5)
    name: Literal["rmse", "mae", "accuracy", "f1_macro"]
    max_ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    min_rows: int = Field(50, ge=1)


class _SchemaGate(_Strict):
    kind: Literal["schema"]


class _RobustnessGate(_Strict):
    kind: Literal["robustness"]
    max_change: Annotated[float, Field(ge=0, le=10)]
    nudge: Annotated[float, Field(gt=0, le=1)] = 0.01


class _OwnGate(_Strict):
    kind: Literal["own"]
    name: Name
    options: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("options")
    @classmethod
    def _can_be_hashed(cls, options: dict[str, JsonValue]) -> dict[str, JsonValue]:
        canonical(options)  # a NaN or an infinity could be read, and then not be hashed
        return options


_Gate = Annotated[
    _MetricGate | _ChampionGate | _LatencyGate | _SlicesGate | _SchemaGate | _RobustnessGate | _OwnGate,
    Field(discriminator="kind"),
]


class _Approvals(_Strict):
    required: int = Field(1, ge=0, le=10)
    # Without any, nobody could answer an inconclusive gate.
    roles: tuple[Literal["reviewer", "admin"], ...] = Field(("reviewer",), min_length=1)
    by_role: dict[Literal["reviewer", "admin"], Annotated[int, Field(ge=1, le=10)]] = Field(default_factory=dict)
    expires: Duration = timedelta(hours=72)
    prevent_self_review: bool = True
    exclude_trainer: bool = True
    fresh: Duration | None = None

    @model_check(mode="after")
    def _can_be_given(self) -> "_Approvals":
        if stray := set(self.by_role) - set(self.roles):
            raise ValueError(f"by_role names {', '.join(sorted(stray))}, which roles does not list")
        return self


def _quoted(value: object) -> object:
    if isinstance(value, int):  # YAML takes 16:00 for a number, in base 60
        raise ValueError('write a time of day in quotes, as in "16:00"')
    return value


class _Freeze(_Strict):
    """When nothing may be moved: on `days`, or once, `from` a date `to` a date; in the wall-clock time of `zone`."""

    reason: str = Field(min_length=1, max_length=200)
    zone: Annotated[str, Field(max_length=100, examples=["Europe/Berlin"])] = "UTC"
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = ()
    first: date | None = Field(None, alias="from")
    last: date | None = Field(None, alias="to")
    start: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$"), BeforeValidator(_quoted)] = "00:00"
    end: Annotated[str, Field(pattern=r"^(([01]\d|2[0-3]):[0-5]\d|24:00)$"), BeforeValidator(_quoted)] = "24:00"

    @field_validator("zone")
    @classmethod
    def _is_known(cls, zone: str) -> str:
        # Not tried by opening it: a name such as ../x is a path there.
        if zone not in available_timezones():
            raise ValueError("this zone is not known; write one of the IANA time zones, as in Europe/Berlin")
        return zone

    @model_check(mode="after")
    def _means_something(self) -> "_Freeze":
        if not self.days and (self.first is None or self.last is None):
            raise ValueError("give days, or both from and to")
        if self.first is not None and self.last is not None:
            once = (self.last, minutes(self.end)) > (self.first, minutes(self.start))
            if self.last < self.first or not (self.days or once):
                raise ValueError("to must come after from")
        return self


class _BreakGlass(_Strict):
    within: Duration = timedelta(minutes=30)

    @field_validator("within")
    @classmethod
    def _is_a_time_box(cls, within: timedelta) -> timedelta:
        if not timedelta(0) < within <= timedelta(days=1):
            raise ValueError("write more than nothing and at most 1d")
        return within


class _Guardrails(_Strict):
    error_rate: Share = 0.01
    p99_ms: Positive = 100.0
    min_requests: int = Field(20, ge=1)


class _Rollout(_Strict):
    steps: tuple[Annotated[int, Field(ge=1, le=100)], ...] = (10, 50, 100)
    soak: Duration = timedelta(seconds=30)
    guardrails: _Guardrails = _Guardrails()
    max_wait: Duration = timedelta(minutes=10)

    @model_check(mode="after")
    def _ascends(self) -> "_Rollout":
        if not self.steps or self.steps[-1] != 100 or list(self.steps) != sorted(set(self.steps)):
            raise ValueError("steps must ascend and end with 100, as in [10, 50, 100]")
        return self


class _Target(_Strict):
    kind: Literal["process", "docker"] | None = None
    instance: Literal["cpu", "gpu"] = "cpu"
    count: int = Field(1, ge=1, le=64)


class _Environment(_Strict):
    triggers: _Triggers = _Triggers()
    data: _Data | None = None
    parity: _Parity = _Parity()
    gates: tuple[_Gate, ...] = ()
    approvals: _Approvals = _Approvals()
    freeze: tuple[_Freeze, ...] = Field((), max_length=20)
    break_glass: Annotated[
        _BreakGlass | None,
        BeforeValidator(lambda value: None if value is False else value, _BreakGlass | Literal[False]),
    ] = _BreakGlass()
    rollout: _Rollout = _Rollout()
    target: _Target = _Target()


class PolicyFile(_Strict):
    """The whole file of one model."""

    model: Name
    environments: dict[Alias, _Environment] = Field(min_length=1)

    @field_validator("environments")
    @classmethod
    def _can_be_told_apart(cls, environments: dict[str, _Environment]) -> dict[str, _Environment]:
        """Each question means one environment, and none of them is an answer: an environment's own name."""
        asked: dict[str, str] = {}
        for name, environment in environments.items():
            alias = environment.triggers.alias or f"to-{name}"
            for word in (name, alias):
                if _RESERVED.fullmatch(word):
                    raise ValueError(f"MLflow has no aliases named {word}, choose another name")
            if alias in environments:
                raise ValueError(f"the alias {alias!r} is Headgate's own answer: ask for {name} with another one")
            for question in filter(None, (alias, environment.triggers.stage)):
                if asked.setdefault(question, name) != name:
                    raise ValueError(f"{question} asks for both {asked[question]} and {name}")
        return environments
