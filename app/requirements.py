"""Reading what a model was logged with: names and versions out of requirements.txt, python_env.yaml, conda.yaml and
MLmodel, and nothing else of what these files can say. They are somebody else's: text, never handed on as it is."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from packaging.markers import InvalidMarker, UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, Specifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from app.domain.environments import CONVERTERS, FLAVORS, NEEDLESS, is_alike
from app.domain.errors import Rejected

MAX_BYTES, MAX_LINES, MAX_LINE = 256 << 10, 300, 300
_LOG_AGAIN = "Log the model again with pip_requirements=[...] of plain names and versions."
_CONDA = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:={1,2}\s*([0-9][0-9.]*))?")
_PYTHON = re.compile(r"[0-9]{1,2}(\.[0-9]{1,3}){0,2}")


@dataclass(frozen=True)
class Logged:
    """What a model was logged with: its flavor and Python, the packages that it needs as `name[extras]<specifiers>`,
    those that were left out, and the file that said so. Flavor None: no package loads it."""

    flavor: str | None
    python: str = ""
    requirements: tuple[Requirement, ...] = ()
    left_out: tuple[str, ...] = ()
    source: str = ""

    def unmet(self, own: Mapping[str, str]) -> list[str]:
        """What packages of the versions `own` do not meet, in words."""
        return [words for requirement in self.requirements if (words := _unmet(requirement, own))]


def read(folder: Path, allowed: Collection[str]) -> Logged:
    """What the model in `folder` was logged with; only packages that are `allowed` may be asked for.

    MLmodel is judged elsewhere: what is wrong with it reads here as a model without a flavor.

    Raises:
        Rejected: a line is no plain name with versions, or names a package that is not allowed. It is told with its
            file and line.
    """
    flavor, version = _flavor(folder / "MLmodel")
    if flavor is None:
        return Logged(None)
    python = _mapping(folder / "python_env.yaml")
    conda = _mapping(folder / "conda.yaml")
    source, lines = _lines(folder, python, conda)
    found, left_out = _parsed(source, lines, allowed)
    package = FLAVORS[flavor].package
    return Logged(
        flavor,
        _python(python, conda),
        tuple(sorted(_with_version(found, package, version), key=str)),
        tuple(sorted(set(left_out))),
        source,
    )


def parse(line: str, where: str, allowed: Collection[str]) -> Requirement | None:
    """One line as a plain requirement; None for a comment, for what does not hold for this interpreter, and for what no
    model needs. `where` begins the reason: a file and a line.

    Raises:
        Rejected: it is anything else, or not allowed.
    """
    text = re.sub(r"(^|\s)#.*", "", line).strip()
    if not text:
        return None
    if len(line) > MAX_LINE or not line.isprintable() or not line.isascii():
        raise _refused(where, "is longer than 300 characters or not plain text")
    if text.startswith("-"):
        raise _refused(where, f"has the option {_shown(re.split('[= ]', text)[0])}, and only names and versions count")
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        raise _refused(where, f"is no plain name with versions: {_shown(text)}") from None
    name = canonicalize_name(requirement.name)
    if requirement.url is not None:
        raise _refused(where, f"asks for {_shown(name)} from an address")
    if any(specifier.operator == "===" for specifier in requirement.specifier):
        raise _refused(where, f"asks for {_shown(name)} with ===, which compares letters and not versions")
    if not _holds(requirement, where) or name in CONVERTERS or (name in NEEDLESS and name not in allowed):
        return None
    if name not in allowed:
        remedy = "Log the model without it, or have it added to HEADGATE_ENVIRONMENT_PACKAGES by whoever runs Headgate."
        raise Rejected(f"{where} asks for the package {_shown(name)}, which is not allowed here.", remedy)
    return _plain(name, requirement)


def _plain(name: str, requirement: Requirement) -> Requirement:
    """The same without marker and without the local part of versions (`2.1+cpu`), which only says who built it."""
    specifiers = ",".join(f"{s.operator}{s.version.partition('+')[0]}" for s in requirement.specifier)
    extras = f"[{','.join(sorted(map(canonicalize_name, requirement.extras)))}]" if requirement.extras else ""
    return Requirement(f"{name}{extras}{SpecifierSet(specifiers)}")


def _holds(requirement: Requirement, where: str) -> bool:
    try:
        return requirement.marker is None or requirement.marker.evaluate()
    except (InvalidMarker, UndefinedComparison, UndefinedEnvironmentName, InvalidVersion, InvalidSpecifier):
        raise _refused(where, "has a condition that cannot be decided") from None


def _parsed(
    source: str, lines: Iterable[tuple[int, str]], allowed: Collection[str]
) -> tuple[list[Requirement], list[str]]:
    found, left_out = [], []
    for number, line in lines:
        requirement = parse(line, f"{source} {'line' if source.endswith('.txt') else 'entry'} {number}", allowed)
        if requirement is not None:
            found.append(requirement)
        elif text := re.sub(r"(^|\s)#.*", "", line).strip():
            left_out.append(text)
    return found, left_out


def _lines(folder: Path, python: Mapping[str, Any], conda: Mapping[str, Any]) -> tuple[str, list[tuple[int, str]]]:
    """The file that says which packages, and its numbered lines. MLflow writes the same into all three."""
    text = _text(folder / "requirements.txt")
    if text is not None:
        # A list of lines for people's editors, not for Python's idea of where one ends.
        return "requirements.txt", _few("requirements.txt", re.split(r"\r\n|\n|\r", text))
    if "dependencies" in python:
        return "python_env.yaml", _few("python_env.yaml", python["dependencies"])
    return "conda.yaml", _few("conda.yaml", _conda(conda.get("dependencies", [])))


def _few(source: str, lines: Any) -> list[tuple[int, str]]:
    if not isinstance(lines, list) or len(lines) > MAX_LINES or not all(isinstance(line, str) for line in lines):
        raise _refused(source, f"is no list of at most {MAX_LINES} lines of text")
    return list(enumerate(lines, 1))


def _conda(dependencies: Any) -> list[Any]:
    """Conda's own packages as requirements, then those of its part `pip`."""
    if not isinstance(dependencies, list):
        raise _refused("conda.yaml", "has no list of dependencies")
    lines: list[Any] = []
    for entry in dependencies:
        if isinstance(entry, dict) and isinstance(entry.get("pip"), list):
            lines += entry["pip"]
        elif isinstance(entry, str) and (match := _CONDA.fullmatch(entry.strip())):
            name, version = match[1], (match[2] or "").rstrip(".")
            lines += [] if name == "python" else [f"{name}=={version}.*" if version else name]
        elif not (isinstance(entry, str) and re.match(r"(python|pip)\b", entry)):
            lines.append(entry)  # `parse` says what is wrong with it
    return lines


def _with_version(found: list[Requirement], package: str, version: str) -> Iterator[Requirement]:
    """Where no version of the flavor's own package was logged, it is the one that MLmodel names."""
    pinned = any(requirement.name == package and _pins(requirement) for requirement in found)
    yield from found
    if version and not pinned:
        yield Requirement(f"{package}=={version}")


def _pins(requirement: Requirement) -> list[str]:
    exact = [s.version for s in requirement.specifier if s.operator == "=="]
    return [version for version in exact if not version.endswith("*")]


def _unmet(requirement: Requirement, own: Mapping[str, str]) -> str:
    ours = own.get(requirement.name)
    if ours is None or requirement.extras:
        return f"{requirement}, which is not part of Headgate's own"
    pins = _pins(requirement)
    alike = all(is_alike(requirement.name, pin, ours) for pin in pins)
    others = SpecifierSet(",".join(str(s) for s in requirement.specifier if not _is_pin(s)))
    return "" if alike and others.contains(ours, prereleases=True) else f"{requirement}, and Headgate's own is {ours}"


def _is_pin(specifier: Specifier) -> bool:
    return specifier.operator == "==" and not specifier.version.endswith("*")


def _flavor(file: Path) -> tuple[str | None, str]:
    """The flavor and the version of its package that MLmodel names; no flavor where MLmodel is not as it should be."""
    try:
        flavors = _mapping(file).get("flavors")
    except Rejected:
        return None, ""
    if not isinstance(flavors, dict) or "onnx" in flavors:
        return None, ""
    flavor = next((name for name in FLAVORS if isinstance(flavors.get(name), dict)), None)
    if flavor is None:
        return None, ""
    try:
        return flavor, Version(str(flavors[flavor].get(FLAVORS[flavor].version_key))).public
    except InvalidVersion:
        return flavor, ""


def _python(python: Mapping[str, Any], conda: Mapping[str, Any]) -> str:
    """The Python that the model was logged with, for people."""
    dependencies = conda.get("dependencies")
    entries = [e for e in dependencies if isinstance(e, str)] if isinstance(dependencies, list) else []
    candidates = [
        str(python.get("python", "")),
        *(e.partition("=")[2].lstrip("=") for e in entries if e[:7] == "python="),
    ]
    return next((text for text in candidates if _PYTHON.fullmatch(text)), "")


class _PlainLoader(yaml.SafeLoader):
    """No aliases: a few lines of them make gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)


def _mapping(file: Path) -> Mapping[str, Any]:
    """The file's YAML mapping, empty where there is no such file."""
    text = _text(file)
    if text is None:
        return {}
    try:
        document = yaml.load(text, _PlainLoader)  # noqa: S506 - a SafeLoader that knows even less
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _refused(file.name, "is not plain YAML") from error
    if not isinstance(document, dict):
        raise _refused(file.name, "is no mapping")
    return document


def _text(file: Path) -> str | None:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        raise _refused(file.name, "is a folder") from None
    if len(data) > MAX_BYTES:
        raise _refused(file.name, f"is larger than {MAX_BYTES >> 10} KiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _refused(file.name, "is not UTF-8") from None


def _refused(where: str, what: str) -> Rejected:
    return Rejected(f"{where} {what}.", _LOG_AGAIN)


def _shown(text: str) -> str:
    """What a line says, for people: short, in ASCII, and without an address, which may hold a password."""
    return ascii(re.sub(r"\S*(://|@)\S*", "<address>", text)[:80])
