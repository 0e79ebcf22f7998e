"""Verifies what MLflow's webhooks deliver: the HMAC over the raw bytes first, then what the body says."""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.domain.errors import Invalid, Unauthorized
from app.domain.registry import ASK_TAG, Event

MAX_BODY = 1024 * 1024
MAX_NAME = 1024
ID_HEADER = "x-mlflow-delivery-id"
TIMESTAMP_HEADER = "x-mlflow-timestamp"
SIGNATURE_HEADER = "x-mlflow-signature"

# MLflow writes a UUID, whole unix seconds and one versioned signature; whatever else comes is not MLflow's.
_SYNTAX = {
    ID_HEADER: re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII),
    TIMESTAMP_HEADER: re.compile(r"[1-9][0-9]{0,11}", re.ASCII),
    SIGNATURE_HEADER: re.compile(r"v1,[A-Za-z0-9+/]{43}=", re.ASCII),
}
_WORD = re.compile(r"[a-z_]{1,64}", re.ASCII)

# All four payloads carry the model under `name`. Prompts live in the same registry and also carry a `name`, and
# budgets carry none: both are no business of ours, and so is any entity that a later MLflow may add.
_MODEL_ENTITIES = frozenset({"registered_model", "model_version", "model_version_tag", "model_version_alias"})


@dataclass(frozen=True)
class Delivery:
    """One verified delivery: `id` stays the same over MLflow's retries, `timestamp` is unix seconds.

    `model` names the registered model that the event is about, None where the event is not about a model; `event` is
    what it says of a field that Headgate watches, None where it says nothing of one; `sent_at` is MLflow's own time of
    it, finer than `timestamp` where the body tells it.
    """

    id: str
    timestamp: int
    entity: str
    action: str
    model: str | None
    event: Event | None
    sent_at: datetime


def verify(secrets: Sequence[str], headers: Mapping[str, str], body: bytes, now: float, tolerance_s: float) -> Delivery:
    """Check a delivery against the secrets that are valid now (current and previous) and read it.

    `body` is the raw request body, `now` unix seconds, and `tolerance_s` the greatest distance of the delivery's
    timestamp from `now` in either direction.

    Raises:
        Unauthorized: a header is missing, no secret fits, or the timestamp is too far away.
        Invalid: a header or the body is malformed or too large; the body is read only once the signature is right.
    """
    values = _read_headers(headers)
    if len(body) > MAX_BODY:
        raise Invalid("body", f"larger than {MAX_BODY} bytes")
    delivery_id, timestamp, signature = (values[name] for name in _SYNTAX)
    _check_signature(secrets, f"{delivery_id}.{timestamp}.".encode() + body, signature)
    if abs(now - int(timestamp)) > tolerance_s:
        raise Unauthorized(
            f"The delivery's timestamp is {abs(now - int(timestamp)):.0f} s away, more than {tolerance_s:g} s.",
            "Compare the clocks of the MLflow server and of this machine.",
        )
    return _read_body(delivery_id, int(timestamp), body)


def _read_headers(headers: Mapping[str, str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in headers.items():
        lowered = name.lower()
        if lowered not in _SYNTAX:
            continue
        if lowered in values:
            raise Invalid(lowered, "the header comes twice")
        values[lowered] = value
    for name, syntax in _SYNTAX.items():
        if name not in values:
            raise Unauthorized(
                f"The header {name} is missing.",
                "See that MLflow's webhook has a secret: without one it signs nothing.",
            )
        if not syntax.fullmatch(values[name]):
            raise Invalid(name, "not in the form that MLflow writes")
    return values


def _check_signature(secrets: Sequence[str], signed: bytes, signature: str) -> None:
    # The encoded text is compared, not the decoded bytes, because two base64 texts can decode to the same bytes.
    given, matched = signature.encode(), False
    for secret in filter(None, secrets):
        digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
        matched |= hmac.compare_digest(b"v1," + base64.b64encode(digest), given)
    if not matched:
        raise Unauthorized(
            "The signature fits none of the webhook secrets.",
            "See that HEADGATE_MLFLOW_WEBHOOK_SECRETS holds the secret of MLflow's webhook.",
        )


def _read_body(delivery_id: str, timestamp: int, body: bytes) -> Delivery:
    try:
        payload: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise Invalid("body", "not JSON") from None
    if not isinstance(payload, dict):
        raise Invalid("body", "not a JSON object")
    entity, action = (_word(payload, key) for key in ("entity", "action"))
    data = payload.get("data")
    if not isinstance(data, dict):
        raise Invalid("data", "not a JSON object")
    model = _name(data) if entity in _MODEL_ENTITIES else None
    event = _event(entity, action, data)
    return Delivery(delivery_id, timestamp, entity, action, model, event, _sent_at(payload, timestamp))


def _event(entity: str, action: str, data: Mapping[str, Any]) -> Event | None:
    """What the payload says of an alias or of the asking tag. It is evidence and no order: what does not say it in
    MLflow's words says nothing."""
    alias, version, key, value, tags = (data.get(word) for word in ("alias", "version", "key", "value", "tags"))
    match entity, action:
        case "model_version_alias", "created" if _words(alias, version):
            return Event(f"alias:{alias}", None, version)
        case "model_version_alias", "deleted" if _words(alias):
            return Event(f"alias:{alias}", None, None)
        case "model_version_tag", "set" if key == ASK_TAG and _words(version, value):
            return Event(f"tag:{ASK_TAG}", version, value)
        case "model_version_tag", "deleted" if key == ASK_TAG and _words(version):
            return Event(f"tag:{ASK_TAG}", version, None)
        case "model_version", "created" if isinstance(tags, dict) and _words(version, tags.get(ASK_TAG)):
            return Event(f"tag:{ASK_TAG}", version, tags[ASK_TAG])
    return None


def _words(*values: object) -> bool:
    return all(isinstance(value, str) for value in values)


def _sent_at(payload: Mapping[str, Any], timestamp: int) -> datetime:
    try:
        told = datetime.fromisoformat(payload["timestamp"])
        return told.astimezone(UTC) if told.tzinfo else told.replace(tzinfo=UTC)
    except (KeyError, TypeError, ValueError, OverflowError):
        return datetime.fromtimestamp(timestamp, UTC)


def _word(payload: Mapping[str, Any], key: str) -> str:
    value = payload.get(key)
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise Invalid(key, "not a word of lower-case letters")
    return value


def _name(data: Mapping[str, Any]) -> str:
    value = data.get("name")
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME:
        raise Invalid("data.name", f"not a text of 1 to {MAX_NAME} characters")
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        # JSON can write both, and neither a database nor a URL can take them.
        raise Invalid("data.name", "holds a character that no model name has")
    return value
