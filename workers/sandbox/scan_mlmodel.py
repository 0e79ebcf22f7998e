"""What an MLmodel file asks of whoever loads the model: loaders, code and paths that lead elsewhere."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 4 << 20
MAX_ALIASES = 100
_LOADER = re.compile(r"mlflow\.[a-z_]+(\.model)?")
_CODE_KEYS = ("code", "model_code_path", "loader_code_path", "code_path", "code_paths")
_ELSEWHERE = re.compile(r"^/|(^|/)\.\.(/|$)|\\|^~|^[A-Za-z][A-Za-z0-9+.-]*://")


def problems(file: Path) -> list[str]:
    """Why a model with this MLmodel file is not taken: reasons for people; none where it is fine. Whether it is
    complete, and its flavor known, is judged where it is converted."""
    if file.is_symlink() or not file.is_file() or file.stat().st_size > MAX_BYTES:
        return ["no MLmodel file of a sensible size"]
    data = file.read_bytes()
    if reasons := tags(data):
        return reasons  # What is forbidden need not be read any further.
    try:
        document = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        return [f"no YAML: {type(error).__name__}"]
    flavors = document.get("flavors") if isinstance(document, dict) else None
    if not isinstance(flavors, dict):
        return ["no flavors"]
    example = document.get("saved_input_example_info")
    reasons = [reason for name, settings in flavors.items() for reason in _flavor(str(name), settings)]
    return reasons + list(_paths("saved_input_example_info", example))


def tags(data: bytes) -> list[str]:
    """YAML tags, which ask a careless reader for Python objects, and more aliases than anybody writes by hand: a few
    make a document of any size. Text that is no YAML has none."""
    if b"!" not in data and b"*" not in data:
        return []
    found, aliases = set(), 0
    try:
        for token in yaml.scan(data, Loader=yaml.SafeLoader):
            if isinstance(token, yaml.TagToken):
                found.add("".join(filter(None, token.value)))
            aliases += isinstance(token, yaml.AliasToken)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError):
        pass  # What could be read up to there has been; nobody else reads further either.
    reasons = [f"the YAML tag {tag!a}" for tag in sorted(found)]
    return reasons + ([f"more than {MAX_ALIASES} YAML aliases"] if aliases > MAX_ALIASES else [])


def _flavor(name: str, settings: Any) -> Iterator[str]:
    if not isinstance(settings, dict):
        yield f"the flavor {name!a} without settings"
        return
    loader = settings.get("loader_module")
    if loader is not None and not _LOADER.fullmatch(str(loader)):
        yield f"the loader {loader!a}, which is not MLflow's own"
    for key in _CODE_KEYS:
        if settings.get(key):
            yield f"code of its own ({key}: {settings[key]!a}), which is never run here"
    yield from _paths(name, {key: value for key, value in settings.items() if key not in (*_CODE_KEYS, "artifacts")})


def _paths(name: str, settings: Any) -> Iterator[str]:
    """Settings that name a place outside the model. What a pyfunc model says of its artifacts' origins is history."""
    waiting = [settings]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and _ELSEWHERE.search(value):
            yield f"a place outside the model in {name!a}: {value[:200]!a}"
