"""Policy files: YAML to domain.Policy by way of pydantic, with the line number in every complaint."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from app.domain import policy as domain
from app.domain.errors import Invalid
from app.policy_models import PolicyFile

MAX_NODES = 20_000
NAME = re.compile(r"[A-Za-z0-9._-]+\Z")
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
    if _weight(root, {}) > MAX_NODES:
        raise Invalid(source, f"line 1: the file has more than {MAX_NODES} values, or holds itself")
    if root is None or not isinstance(value, dict):
        raise Invalid(source, "line 1: the file must be a mapping with the keys model and environments")
    try:
        file = PolicyFile.model_validate(value)
    except ValidationError as error:
        raise Invalid(source, "\n".join(_complaint(root, item) for item in error.errors())) from None
    return _to_domain(file)


def _weight(node: yaml.Node | None, known: dict[int, int]) -> int:
    """How many values there are once all aliases are written out, which takes a few lines to make billions of."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MAX_NODES + 1  # what is met again within itself has no end
        parts = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_weight(part, known) for part in parts)
    return known[id(node)]


def _to_domain(file: PolicyFile) -> domain.Policy:
    environments = {}
    for name, environment in file.environments.items():
        values = environment.model_dump()
        values["triggers"]["alias"] = values["triggers"]["alias"] or f"to-{name}"
        environments[name] = _DOMAIN.validate_python(values)
    return domain.Policy(file.model, environments)


def _complaint(root: yaml.Node, error: Any) -> str:
    path = _path(error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "unknown key; see `headgate policy schema` for those that exist"
    return f"line {_line(root, path)}: {'.'.join(map(str, path)) or 'file'}: {message}"


def _path(location: Sequence[str | int]) -> list[str | int]:
    """Where the file has it: pydantic puts the kind of a gate behind its number."""
    kinds = {at for at in range(2, len(location)) if isinstance(location[at - 1], int) and location[at - 2] == "gates"}
    return [part for at, part in enumerate(location) if at not in kinds]


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
