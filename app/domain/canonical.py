"""Canonical JSON (RFC 8785): the one way in which a value is written before it is hashed."""

import json
import math
from typing import Any


def canonical(value: Any) -> bytes:
    """Serialise a JSON value: keys sorted by UTF-16 code units, numbers as ECMAScript writes them, no spaces, UTF-8.

    Whole numbers beyond 2**53, for which RFC 8785 has no form, are written out in full.

    Raises:
        ValueError: the value holds NaN, an infinity or text that is not Unicode, or is nested too deep.
        TypeError: it holds something that JSON does not know.
    """
    try:
        return _written(value).encode()
    except RecursionError:
        raise ValueError("the value is nested too deep to be written as JSON") from None


def _written(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value, ensure_ascii=False)
        case int():
            return str(value)
        case float():
            return _number(value)
        case dict():
            return _object(value)
        case list() | tuple():
            return "[" + ",".join(map(_written, value)) + "]"
    raise TypeError(f"JSON has no {type(value).__name__}")


def _object(value: dict[Any, Any]) -> str:
    for key in value:
        if not isinstance(key, str):
            raise TypeError(f"JSON has no keys that are {type(key).__name__}")
    ordered = sorted(value, key=lambda key: key.encode("utf-16-be", "surrogatepass"))
    return "{" + ",".join(f"{json.dumps(key, ensure_ascii=False)}:{_written(value[key])}" for key in ordered) + "}"


def _number(value: float) -> str:
    """ECMAScript's Number::toString: Python finds the same shortest digits and only sets them out in another way."""
    if not math.isfinite(value):
        raise ValueError(f"JSON has no word for {value}")
    if value == 0:
        return "0"
    sign, (digits, point) = "-" if value < 0 else "", _digits(abs(value))
    count = len(digits)
    if count <= point <= 21:
        return f"{sign}{digits}{'0' * (point - count)}"
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if count > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{point - 1:+d}"


def _digits(value: float) -> tuple[str, int]:
    """The shortest digits that mean the value, and where the point stands: 0.digits * 10**point."""
    mantissa, _, exponent = repr(value).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) if whole.strip("0") else len(digits) - len(fraction) + int(exponent or 0)
    return digits.rstrip("0"), point
