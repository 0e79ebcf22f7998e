"""Measurements as JSON: how they are kept with a promotion, and read again to judge them by another policy."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from app.domain.measured import Measurements

_MEASUREMENTS = TypeAdapter(Measurements)


def freeze(measured: Measurements) -> dict[str, Any]:
    """The JSON form."""
    frozen: dict[str, Any] = _MEASUREMENTS.dump_python(measured, mode="json")
    return frozen


def thaw(frozen: Mapping[str, Any]) -> Measurements | None:
    """What `freeze` wrote; None for what an older release kept otherwise."""
    try:
        return _MEASUREMENTS.validate_python(dict(frozen))
    except ValidationError:
        return None
