"""Policy files: YAML to domain.Policy by way of pydantic, with the line number in every complaint."""

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    field_validator,
)
from pydantic import model_validator as model_check

from app.domain import policy as domain
from app.domain.errors import Invalid

NAME = re.compile(r"[A-Za-z0-9._-]+\Z")
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
    uri: str = Field(min_length=1)
    label: str = Field(min_length=1)
    rows: int = Field(5000, ge=1, le=1_000_000)


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


_Gate = Annotated[_MetricGate | _ChampionGate | _LatencyGate, Field(discriminator="kind")]


class _Approvals(_Strict):
    required: int = Field(1, ge=0, le=10)
    roles: tuple[Literal["reviewer", "admin"], ...] = ("reviewer",)
    expires: Duration = timedelta(hours=72)
    prevent_self_review: bool = True


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


_DOMAIN = TypeAdapter(domain.EnvironmentPolicy)


def freeze(environment: domain.EnvironmentPolicy) -> dict[str, Any]:
    """The JSON form of an environment's policy, as it is hashed and kept with a promotion."""
    frozen: dict[str, Any] = _DOMAIN.dump_python(environment, mode="json")
    return frozen


def thaw(frozen: Mapping[str, Any]) -> domain.EnvironmentPolicy:
    """The policy that `freeze` wrote."""
    return _DOMAIN.validate_python(dict(frozen))


def parse(text: str, source: str = "policy") -> domain.Policy:
    """Read one policy file; an environment without an alias trigger gets `to-<environment>`.

    Raises:
        Invalid: with the line, the key, what is wrong and, for a misspelt key, the ones that exist.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise Invalid(source, f"line {line}: not valid YAML: {getattr(error, 'problem', error)}") from error
    except (ValueError, RecursionError) as error:
        # PyYAML lets these through: a date that no calendar has, or brackets without end.
        raise Invalid(source, f"line 1: not valid YAML: {error}") from error
    if root is None or not isinstance(value, dict):
        raise Invalid(source, "line 1: the file must be a mapping with the keys model and environments")
    try:
        file = PolicyFile.model_validate(value)
    except ValidationError as error:
        raise Invalid(source, "\n".join(_complaint(root, item) for item in error.errors())) from None
    return _to_domain(file)


def _to_domain(file: PolicyFile) -> domain.Policy:
    environments = {}
    for name, environment in file.environments.items():
        values = environment.model_dump()
        values["triggers"]["alias"] = values["triggers"]["alias"] or f"to-{name}"
        environments[name] = _DOMAIN.validate_python(values)
    return domain.Policy(file.model, environments)


def _complaint(root: yaml.Node, error: Any) -> str:
    path = [part for part in error["loc"] if not (isinstance(part, str) and part in ("metric", "champion", "latency"))]
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "unknown key; see `headgate policy schema` for those that exist"
    return f"line {_line(root, path)}: {'.'.join(map(str, path)) or 'file'}: {message}"


def _line(node: yaml.Node, path: list[str | int]) -> int:
    """The line (from 1) of the deepest node on `path` that the file really has."""
    line: int = node.start_mark.line + 1
    for part in path:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == part), None)
            if found is None:
                return line
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


class PolicyFolder:
    """All policy files of a folder, one a model; read anew each time, so that an edit counts at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def policy(self, model: str) -> domain.Policy:
        """The policy of a model: its file `<model>.yaml`, or the documented default.

        Raises:
            Invalid: the file is malformed or speaks of another model.
        """
        if not NAME.match(model):
            return domain.default_policy(model)
        file = self._folder / f"{model}.yaml"
        if not file.is_file():
            return domain.default_policy(model)
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise Invalid(file.name, f"line 1: the file cannot be read ({type(error).__name__})") from error
        found = parse(text, file.name)
        if found.model != model:
            raise Invalid(file.name, f"line 1: model: the file is named after {model} but speaks of {found.model}")
        return found
