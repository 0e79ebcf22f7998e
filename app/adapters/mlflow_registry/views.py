"""Reads models as Headgate watches them, joining MLflow's two searches so that no race looks like a deletion."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from app.adapters.mlflow_registry.rest import DOES_NOT_EXIST, INVALID, ApiError, Rest, Row
from app.domain.errors import Transient
from app.domain.registry import ASK_TAG, NO_STAGE, ModelView

# MLflow keeps prompts in the same tables; its searches leave them out, a plain read does not.
_PROMPT_TAG = "mlflow.prompt.is_prompt"
_BY_NAME = ["name ASC", "version_number ASC"]


@dataclass
class _Versions:
    """What is kept of all versions of one model: every number, and the few that ask for something."""

    numbers: set[str] = field(default_factory=set)
    stages: dict[str, str] = field(default_factory=dict)
    asks: dict[str, str] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        number, stage = text(row, "version"), row.get("current_stage") or NO_STAGE
        self.numbers.add(number)
        if stage != NO_STAGE:
            self.stages[number] = stage
        ask = tags(row).get(ASK_TAG)
        if ask is not None:
            self.asks[number] = ask


class Views:
    """Reads models; the page sizes are the largest that MLflow allows or that a server of 10,000 models takes well."""

    def __init__(self, rest: Rest, models_page: int, versions_page: int) -> None:
        self._rest = rest
        self._models_page = models_page
        self._versions_page = versions_page

    def read(self, name: str) -> ModelView | None:
        """One model, or None where there is none of that name (nor can be: `a/b` is no name)."""
        try:
            row = self._rest.get("registered-models/get", {"name": name}).get("registered_model")
        except ApiError as error:
            if error.code in (DOES_NOT_EXIST, INVALID):
                return None
            raise
        if not isinstance(row, dict):
            raise Transient(f"MLflow's answer holds no model {name!r}.", "This is read again.")
        if tags(row).get(_PROMPT_TAG, "").lower() == "true":
            return None
        versions = _Versions()
        for page in self._version_pages(filter=name_filter(name)):
            for version in page:
                # Some databases compare without case; the name is compared again here.
                if version.get("name") == name:
                    versions.add(version)
        return _view(row, versions)

    def all(self) -> Iterator[ModelView]:
        """All models.

        MLflow's pages are offsets into a living table: a row that goes away while they are read moves one row past
        the reader. Read in the order of names, such a row belongs to the last model of a page, the first of the
        next, or one in between; those are read again alone, and so is any model of which the two searches disagree.
        """
        versions, doubtful = self._all_versions()
        listed: set[str] = set()
        for page in self._rest.pages("registered-models/search", "registered_models", self._models_page):
            for row in page:
                name = text(row, "name")
                if name in listed:
                    continue
                listed.add(name)
                known = versions.pop(name, None) or _Versions()
                whole = {text(version, "version") for version in rows(row, "latest_versions")} <= known.numbers
                view = _view(row, known) if whole and name not in doubtful else self.read(name)
                if view is not None:
                    yield view
        for name in sorted(versions.keys() - listed):
            view = self.read(name)
            if view is not None:
                yield view

    def _all_versions(self) -> tuple[dict[str, _Versions], set[str]]:
        versions: dict[str, _Versions] = {}
        doubtful: set[str] = set()
        last = None
        for page in self._version_pages():
            for row in page:
                name = text(row, "name")
                versions.setdefault(name, _Versions()).add(row)
            if page:
                if last is not None:
                    doubtful |= {last, text(page[0], "name")}
                last = text(page[-1], "name")
        return versions, doubtful

    def _version_pages(self, **params: Any) -> Iterator[list[Row]]:
        return self._rest.pages(
            "model-versions/search", "model_versions", self._versions_page, order_by=_BY_NAME, **params
        )


def _view(row: Row, versions: _Versions) -> ModelView:
    aliases = {text(alias, "alias"): text(alias, "version") for alias in rows(row, "aliases")}
    return ModelView(text(row, "name"), aliases, versions.stages, versions.asks, frozenset(versions.numbers))


def name_filter(name: str) -> str:
    """MLflow's search filter for exactly this name.

    Its language has no escape for quotes, but it reads a list as Python reads one: there every letter can be
    written as its number. MLflow 2 knows no lists of names, so that plain names go without one.
    """
    if re.fullmatch(r"[\w .-]+", name, re.ASCII):
        return f"name = '{name}'"
    return "name IN ('" + "".join(f"\\U{ord(letter):08x}" for letter in name) + "')"


def text(row: Row, key: str) -> str:
    """A non-empty text of a row; anything else means that the answer is broken."""
    value = row.get(key)
    if not isinstance(value, str) or not value:
        raise Transient(
            f"A row of MLflow's answer has no {key}.", "This is read again; if it goes on, see MLflow's log."
        )
    return value


def rows(row: Row, key: str) -> Iterable[Row]:
    """A list of objects in a row; MLflow leaves an empty one out."""
    value = row.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Transient(
            f"MLflow's answer holds no list of {key}.", "This is read again; if it goes on, see MLflow's log."
        )
    return value


def tags(row: Row) -> dict[str, str]:
    """The tags of a model, a version or a run; MLflow may leave an empty value out."""
    return {text(tag, "key"): str(tag.get("value", "")) for tag in rows(row, "tags")}
